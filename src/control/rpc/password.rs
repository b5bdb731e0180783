//! The password that every call carries in its metadata.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mb_core::secret::Secret;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::tries::{PAUSE, TRIES, Tries};
use crate::control::connections::group;

/// The metadata key of the password.
pub const METADATA_KEY: &str = "password";

/// Lets calls pass that carry the right password.
#[derive(Clone)]
pub struct PasswordCheck {
    password: Arc<ArcSwap<Secret>>,
    tries: Arc<Mutex<Tries>>,
}

impl PasswordCheck {
    /// Asks for `password`; an empty one accepts an empty or missing value.
    pub(super) fn new(password: Secret) -> PasswordCheck {
        PasswordCheck { password: Arc::new(ArcSwap::from_pointee(password)), tries: Arc::default() }
    }

    /// Asks for `password` from the next call on.
    pub fn change(&self, password: Secret) {
        self.password.store(Arc::new(password));
    }

    fn accepts(&self, metadata: &MetadataMap) -> bool {
        let given = metadata.get(METADATA_KEY).map(|value| value.as_bytes()).unwrap_or_default();
        self.password.load().expose().as_bytes().ct_eq(given).into()
    }
}

impl Interceptor for PasswordCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let address = request.remote_addr().map(|address| group(address.ip()));
        if let Some(rest) = address.and_then(|address| self.tries().refused_for(address, Instant::now())) {
            return Err(Status::resource_exhausted(format!(
                "too many wrong passwords from this address: try again in {} s",
                rest.as_secs() + 1
            )));
        }
        if self.accepts(request.metadata()) {
            return Ok(request);
        }
        // A call without a password is no guess.
        if let Some(address) = address.filter(|_| request.metadata().contains_key(METADATA_KEY)) {
            self.note_wrong(address);
        }
        Err(Status::unauthenticated("wrong password: give the daemon's RPCPassword, with -P or -a"))
    }
}

impl PasswordCheck {
    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_wrong(&self, address: IpAddr) {
        if self.tries().note_wrong(address, Instant::now()) {
            tracing::warn!(
                "RPC: {TRIES} wrong passwords from {address}: none of it is looked at for {} s",
                PAUSE.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(password: &str, given: Option<&'static str>) -> bool {
        let mut metadata = MetadataMap::new();
        if let Some(given) = given {
            metadata.insert(METADATA_KEY, given.parse().unwrap());
        }
        PasswordCheck::new(Secret::new(password.to_owned())).accepts(&metadata)
    }

    #[test]
    fn only_the_same_password_is_accepted() {
        assert!(accepts("secret", Some("secret")));
        for given in [None, Some(""), Some("secre"), Some("secret "), Some("Secret")] {
            assert!(!accepts("secret", given), "{given:?}");
        }
    }

    #[test]
    fn a_changed_password_counts_at_once_for_every_copy() {
        let check = PasswordCheck::new(Secret::new("old".to_owned()));
        let copy = check.clone();
        check.change(Secret::new("new".to_owned()));
        let mut metadata = MetadataMap::new();
        metadata.insert(METADATA_KEY, "old".parse().unwrap());
        assert!(!copy.accepts(&metadata));
        metadata.insert(METADATA_KEY, "new".parse().unwrap());
        assert!(copy.accepts(&metadata));
    }

    #[test]
    fn an_empty_password_accepts_only_nothing() {
        assert!(accepts("", None));
        assert!(accepts("", Some("")));
        assert!(!accepts("", Some("x")));
    }
}
