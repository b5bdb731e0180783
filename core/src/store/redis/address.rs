//! Where the servers are, from the configuration: `host:port`, or a `redis://` or `rediss://` URL.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::config::RedisSettings;
use crate::secret::Secret;

/// Redis' port, for URLs without one.
const DEFAULT_PORT: u16 = 6379;

/// A server and how to log in to it.
#[derive(Clone)]
pub(super) struct Server {
    /// Host or address, without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// For access control lists; without it, the default user.
    pub(super) user: Option<String>,
    /// Empty: no AUTH.
    pub(super) password: Secret,
    /// Database number.
    pub(super) database: i64,
}

impl Server {
    fn parse(text: &str) -> Result<Server, String> {
        if !text.contains("://") {
            let (host, port) = text.rsplit_once(':').ok_or("must be host:port or a rediss:// URL")?;
            let host = host.trim_matches(['[', ']']).to_owned();
            let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            return Ok(Server { host, port, tls: false, user: None, password: Secret::default(), database: 0 });
        }
        // The text may hold a password, the error does not.
        let info = text.into_connection_info().map_err(|cause| format!("the URL is not understood: {cause}"))?;
        let (host, port, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err("must be host:port or a rediss:// URL".to_owned()),
        };
        let login = info.redis_settings();
        Ok(Server {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: if port == 0 { DEFAULT_PORT } else { port },
            tls,
            user: login.username().map(str::to_owned),
            password: Secret::new(login.password().unwrap_or_default().to_owned()),
            database: login.db(),
        })
    }

    /// What to connect to. Logging in is not part of it, so that its errors are those of the server.
    pub(super) fn connection_info(&self) -> redis::RedisResult<ConnectionInfo> {
        let (host, port) = (self.host.clone(), self.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?;
        let plain = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(info.set_redis_settings(plain))
    }

    /// `host:port`, for messages.
    pub(super) fn name(&self) -> String {
        let scheme = if self.tls { "rediss://" } else { "" };
        if self.host.contains(':') {
            format!("{scheme}[{}]:{}", self.host, self.port)
        } else {
            format!("{scheme}{}:{}", self.host, self.port)
        }
    }
}

/// Where the data is.
pub(super) enum Location {
    /// One server.
    Server(Server),
    /// Whatever server the Sentinels call the master of this name.
    Sentinels {
        /// The name.
        master: String,
        /// Whom to ask, in this order.
        sentinels: Vec<Server>,
        /// How to talk to the master; its host and port come from the Sentinels.
        login: Server,
    },
}

impl Location {
    /// The location that the configuration gives. `RedisPassword` and `RedisDB` win over what the URL says; the password of
    /// a Sentinel is in its own URL (`redis://:password@host:port`).
    pub(super) fn of(settings: &RedisSettings) -> Result<Location, String> {
        let mut server = Server::parse(settings.address.expose()).map_err(|cause| format!("RedisAddress {cause}"))?;
        if !settings.password.is_empty() {
            server.password.clone_from(&settings.password);
        }
        if settings.database != 0 {
            server.database = settings.database.into();
        }
        if settings.sentinel_master_name.is_empty() {
            return Ok(Location::Server(server));
        }
        let sentinels = settings.sentinels.iter().map(|url| Server::parse(url.expose()));
        Ok(Location::Sentinels {
            master: settings.sentinel_master_name.clone(),
            sentinels: sentinels.collect::<Result<_, _>>().map_err(|cause| format!("RedisSentinels: Host {cause}"))?,
            login: server,
        })
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            Location::Server(server) => format!("redis {}, database {}", server.name(), server.database),
            Location::Sentinels { master, login, .. } => {
                format!("redis, Sentinel master {master:?}, database {}", login.database)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str) -> RedisSettings {
        RedisSettings {
            address: address.to_owned().into(),
            password: Secret::default(),
            database: 0,
            sentinel_master_name: String::new(),
            sentinels: Vec::new(),
        }
    }

    fn server(settings: &RedisSettings) -> Server {
        match Location::of(settings).unwrap() {
            Location::Server(server) => server,
            Location::Sentinels { .. } => panic!("no Sentinel is configured"),
        }
    }

    #[test]
    fn every_form_of_an_address_is_understood() {
        for (text, name) in [
            ("localhost:6379", "localhost:6379"),
            ("[::1]:7000", "[::1]:7000"),
            ("redis://host", "host:6379"),
            ("rediss://host:7000/2", "rediss://host:7000"),
        ] {
            assert_eq!(server(&settings(text)).name(), name);
        }
        let full = server(&settings("rediss://user:p%40ss@host:7000/2"));
        assert_eq!((full.user.as_deref(), full.password.expose(), full.database), (Some("user"), "p@ss", 2));
    }

    #[test]
    fn the_keys_of_the_configuration_win_over_the_url() {
        let own = RedisSettings { password: "own".to_owned().into(), database: 3, ..settings("redis://:url@host/2") };
        let server = server(&own);
        assert_eq!((server.password.expose(), server.database), ("own", 3));
    }

    #[test]
    fn passwords_are_in_no_message() {
        let secret = RedisSettings { password: "secret".to_owned().into(), ..settings("rediss://:secret@host:1") };
        assert!(!Location::of(&secret).unwrap().name().contains("secret"));
        let error = Location::of(&settings("redis://:secret@host:99999")).err().unwrap();
        assert!(!error.contains("secret"), "{error}");
    }
}
