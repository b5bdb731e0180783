//! What a node says of itself.

use std::time::Duration;

use mb_core::config::RedisSettings;
use mb_core::store::{RedisStore, Store};

use super::server::Server;

#[test]
fn a_node_that_watches_says_hello_every_second_until_it_ends() {
    let server = Server::start(&[]);
    let settings = RedisSettings { database: 3, ..server.settings() };
    let store = RedisStore::open(&settings).expect("opened");
    let mut connection = server.connection();
    let mut subscription = connection.as_pubsub();
    subscription.subscribe("_mirrorbits_cluster").expect("subscribed");

    let watch = store.watch_changes(Box::new(|_| {}));
    for _ in 0..2 {
        let text: String = subscription.get_message().expect("a message").get_payload().expect("text");
        let id = text.strip_prefix("HELLO3 ").unwrap_or_else(|| panic!("{text:?} names no node of database 3"));
        assert!(!id.contains(' ') && id.ends_with(&format!("-{}", std::process::id())), "{id}");
    }
    drop(watch);
    subscription.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
    // One more may be under way.
    let silent = (0..2).any(|_| subscription.get_message().is_err_and(|error| error.is_timeout()));
    assert!(silent, "a node that ended is still announced");
}
