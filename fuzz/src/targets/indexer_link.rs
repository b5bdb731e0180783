//! Lines between the daemon and the indexer.

use mb_core::link::{Event, Request};

/// A line, read as a request and as an event.
pub fn run(input: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(input) {
        let line = serde_json::to_vec(&request).expect("a request can be written");
        assert!(!line.contains(&b'\n'), "a request of two lines");
        assert_eq!(serde_json::from_slice::<Request>(&line).expect("what was written"), request);
    }
    if let Ok(event) = serde_json::from_slice::<Event>(input) {
        let line = serde_json::to_vec(&event).expect("an event can be written");
        assert!(!line.contains(&b'\n'), "an event of two lines");
        assert_eq!(serde_json::from_slice::<Event>(&line).expect("what was written"), event);
    }
}
