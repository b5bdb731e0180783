//! Messages between the old and the new process of an upgrade.

use mirrorbits::upgrade::message::{MAX_MESSAGE, Message, common_protocol};

/// A packet.
pub fn run(input: &[u8]) {
    if input.len() > MAX_MESSAGE {
        return;
    }
    match Message::decode(input) {
        Ok(message) => {
            if let Message::Hello { protocols, .. } = &message {
                assert!(common_protocol(protocols).is_none_or(|common| protocols.contains(&common)));
            }
            let again = Message::decode(&message.encode()).expect("what was encoded");
            assert_eq!(again, message, "a message does not survive its own encoding");
        }
        Err(error) => assert!(error.to_string().len() < 1000, "a long message: {error}"),
    }
}
