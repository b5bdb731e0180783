//! The Redis backend on real servers: the suite, without and with a password, then one file per concern.

mod cluster;
mod format;
mod outage;
mod scans;
mod sentinel;
pub(crate) mod server;
mod sightings;
mod tls;

use mb_core::store::Store;

use self::server::Server;

store_suite!(crate::redis::with_empty_store);

fn with_empty_store(case: impl FnOnce(&dyn Store)) {
    let server = Server::start(&[]);
    case(&server.store());
}

mod with_password_and_database_number {
    use mb_core::config::RedisSettings;
    use mb_core::store::{RedisStore, Store};

    use super::server::Server;

    store_suite!(crate::redis::with_password_and_database_number::with_empty_store);

    fn with_empty_store(case: impl FnOnce(&dyn Store)) {
        let server = Server::start(&["requirepass sesame"]);
        let settings = RedisSettings { database: 5, ..server.settings() };
        case(&RedisStore::open(&settings).expect("opened"));
        assert!(!server.command::<String>("INFO keyspace").contains("db0:"), "nothing is in another database");
    }
}
