//! Connections: made, logged in and checked before use; a few are kept, and nobody waits for long.
//!
//! The Sentinels are asked here, not by the client library, whose questions to them have no time limit.

use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, FromRedisValue, Pipeline, ScriptInvocation};

use super::address::{Location, Server};
use super::failure::Failure;
use super::version::{self, Purpose};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer, or any part of it, may take to come. Our own requests keep Redis busy for milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections in use at once; more callers wait.
const CONNECTIONS_MAX: usize = 8;
/// How long such a caller waits.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after the first failed attempt to connect, in which callers get that failure at once; doubled up to
/// [`LONGEST_PAUSE`], so that a frozen server does not hold everybody up for [`CONNECT_TIMEOUT`] each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is noticed within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Keys looked at by one step of a scan.
const KEYS_STEP: usize = 5_000;

/// A connection that is logged in and leads to a database of ours.
pub(super) struct Session {
    connection: Connection,
}

impl Session {
    /// Sends a command and reads its answer.
    pub(super) fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Failure> {
        Ok(command.query(&mut self.connection)?)
    }

    /// Sends commands, as a transaction if they are one, and reads their answers.
    pub(super) fn query_all<T: FromRedisValue>(&mut self, commands: &Pipeline) -> Result<T, Failure> {
        Ok(commands.query(&mut self.connection)?)
    }

    /// Runs a script, which Redis keeps once it has seen it.
    pub(super) fn run<T: FromRedisValue>(&mut self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        Ok(script.invoke(&mut self.connection)?)
    }

    /// Goes through a set or hash by `SSCAN` or `HSCAN`, about `step` elements at a time; some may come more than once.
    pub(super) fn scan<T: FromRedisValue>(
        &mut self,
        command: &str,
        key: impl redis::ToRedisArgs,
        step: usize,
        visit: &mut dyn FnMut(T),
    ) -> Result<(), Failure> {
        let mut cursor = 0_u64;
        loop {
            let (next, part) = self.query(redis::cmd(command).arg(&key).arg(cursor).arg("COUNT").arg(step))?;
            visit(part);
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Goes through the keys that fit `pattern`; some may come more than once. Names that are not UTF-8 are left out.
    pub(super) fn scan_keys(&mut self, pattern: &str, visit: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_STEP);
            let (next, names): (u64, Vec<Vec<u8>>) = self.query(&scan)?;
            names.iter().filter_map(|name| std::str::from_utf8(name).ok()).for_each(&mut *visit);
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The connection, for subscriptions.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// What the server is: `master`, `slave` or `sentinel`.
    fn role(&mut self) -> Result<String, Failure> {
        let answer: Vec<redis::Value> = self.query(&redis::cmd("ROLE"))?;
        let first = answer.into_iter().next().unwrap_or(redis::Value::Nil);
        Ok(redis::from_redis_value(first).map_err(redis::RedisError::from)?)
    }
}

/// The connections of a store.
pub(super) struct Pool {
    location: Location,
    purpose: Purpose,
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Session>,
    in_use: usize,
    outage: Option<Outage>,
}

/// After a failed attempt to connect.
struct Outage {
    failures: u32,
    next_attempt: Instant,
    cause: String,
}

impl Pool {
    /// Makes no connection yet.
    pub(super) fn new(location: Location, purpose: Purpose) -> Pool {
        Pool { location, purpose, state: Mutex::default(), turn: Condvar::new() }
    }

    /// What messages call the database.
    pub(super) fn name(&self) -> String {
        self.location.name()
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        match &self.location {
            Location::Server(server) => server.database,
            Location::Sentinels { login, .. } => login.database,
        }
    }

    /// Runs `work` on a connection of its own.
    pub(super) fn with_session<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let _turn = self.wait_for_turn()?;
        let mut session = self.session()?;
        let outcome = work(&mut session);
        match &outcome {
            Err(failure) if failure.is_from_replica() => self.state().idle.clear(),
            Err(failure) if !failure.leaves_connection_usable() => {}
            _ => self.state().idle.push(session),
        }
        outcome
    }

    /// A new connection, outside the number of those that are kept.
    pub(super) fn connect(&self) -> Result<Session, Failure> {
        let outcome = self.establish();
        let mut state = self.state();
        match &outcome {
            Ok(_) => state.outage = None,
            Err(failure) => {
                let failures = state.outage.as_ref().map_or(0, |outage| outage.failures);
                let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
                let next_attempt = Instant::now() + pause;
                state.outage = Some(Outage { failures: failures + 1, next_attempt, cause: failure.text() });
            }
        }
        outcome
    }

    fn wait_for_turn(&self) -> Result<Turn<'_>, Failure> {
        let (mut state, waited) = self
            .turn
            .wait_timeout_while(self.state(), TURN_PATIENCE, |state| state.in_use >= CONNECTIONS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Failure::Unreachable(format!(
                "all {CONNECTIONS_MAX} connections were in use for {} s; is Redis overloaded?",
                TURN_PATIENCE.as_secs()
            )));
        }
        state.in_use += 1;
        Ok(Turn(self))
    }

    /// A connection that was kept and still works, else a new one.
    fn session(&self) -> Result<Session, Failure> {
        loop {
            let Some(mut session) = self.state().idle.pop() else { break };
            let works = match self.location {
                Location::Server(_) => session.query::<String>(&redis::cmd("PING")).is_ok(),
                Location::Sentinels { .. } => session.role().is_ok_and(|role| role == "master"),
            };
            if works {
                return Ok(session);
            }
            // The others are as old: the server was restarted, or is no longer the master.
            self.state().idle.clear();
        }
        if let Some(outage) = &self.state().outage
            && Instant::now() < outage.next_attempt
        {
            return Err(Failure::Unreachable(outage.cause.clone()));
        }
        self.connect()
    }

    fn establish(&self) -> Result<Session, Failure> {
        let mut session = match &self.location {
            Location::Server(server) => log_in(server)?,
            Location::Sentinels { master, sentinels, login } => find_master(master, sentinels, login)?,
        };
        version::check(&mut session, self.purpose)?;
        Ok(session)
    }

    /// A panic while the lock was held leaves nothing half-done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use one of the connections.
struct Turn<'a>(&'a Pool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().in_use -= 1;
        self.0.turn.notify_one();
    }
}

fn log_in(server: &Server) -> Result<Session, Failure> {
    let mut session = open(server)?;
    if !server.password.is_empty() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(server.user.as_deref()).arg(server.password.expose());
        session.query::<()>(&auth)?;
    }
    if server.database != 0 {
        session.query::<()>(redis::cmd("SELECT").arg(server.database))?;
    }
    Ok(session)
}

fn open(server: &Server) -> Result<Session, Failure> {
    if server.tls {
        choose_cryptography();
    }
    let client = redis::Client::open(server.connection_info()?)?;
    let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(Session { connection })
}

/// rustls asks the process which cryptography to use.
fn choose_cryptography() {
    static CHOSEN: Once = Once::new();
    // An error says that the process has chosen already.
    CHOSEN.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Asks one Sentinel after the other, and follows the first that leads to a master.
fn find_master(master: &str, sentinels: &[Server], login: &Server) -> Result<Session, Failure> {
    let mut causes = Vec::new();
    for sentinel in sentinels {
        match ask_sentinel(master, sentinel, login) {
            Ok(session) => return Ok(session),
            Err(failure) => causes.push(format!("{}: {}", sentinel.name(), failure.text())),
        }
    }
    Err(Failure::Unreachable(format!("no Sentinel leads to the master {master:?}: {}", causes.join("; "))))
}

fn ask_sentinel(master: &str, sentinel: &Server, login: &Server) -> Result<Session, Failure> {
    let address = address_of_master(master, sentinel).or_else(|failure| match &failure {
        // One password may be everywhere.
        Failure::Redis(error) if error.code() == Some("NOAUTH") && sentinel.password.is_empty() => {
            let (user, password) = (login.user.clone(), login.password.clone());
            address_of_master(master, &Server { user, password, ..sentinel.clone() }).map_err(|_| failure)
        }
        _ => Err(failure),
    })?;
    let Some((host, port)) = address else {
        return Err(Failure::Unreachable(format!(
            "it knows no master of this name; correct RedisSentinelMasterName {master:?}"
        )));
    };
    let server = Server { host, port, ..login.clone() };
    let at_master = |failure: Failure| Failure::Unreachable(format!("master {}: {}", server.name(), failure.text()));
    let mut session = log_in(&server).map_err(at_master)?;
    match session.role().map_err(at_master)?.as_str() {
        "master" => Ok(session),
        role => Err(Failure::Unreachable(format!(
            "{} is called the master but says it is a {role}: a failover is under way, this resolves itself",
            server.name()
        ))),
    }
}

fn address_of_master(master: &str, sentinel: &Server) -> Result<Option<(String, u16)>, Failure> {
    let question = Server { database: 0, ..sentinel.clone() };
    log_in(&question)?.query(redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(master))
}
