//! The password that every call carries in its metadata.

use std::sync::Arc;

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata key of the password.
pub const METADATA_KEY: &str = "password";

/// Lets calls pass that carry the right password.
#[derive(Clone)]
pub struct PasswordCheck {
    password: Arc<ArcSwap<Vec<u8>>>,
}

impl PasswordCheck {
    /// Asks for `password`; an empty one accepts an empty or missing value.
    pub(super) fn new(password: &[u8]) -> PasswordCheck {
        PasswordCheck { password: Arc::new(ArcSwap::from_pointee(password.to_vec())) }
    }

    /// Asks for `password` from the next call on.
    pub fn change(&self, password: &[u8]) {
        self.password.store(Arc::new(password.to_vec()));
    }

    fn accepts(&self, metadata: &MetadataMap) -> bool {
        let given = metadata.get(METADATA_KEY).map(|value| value.as_bytes()).unwrap_or_default();
        self.password.load().ct_eq(given).into()
    }
}

impl Interceptor for PasswordCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.accepts(request.metadata()) {
            Ok(request)
        } else {
            Err(Status::unauthenticated("wrong password: give the daemon's RPCPassword, with -P or -a"))
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
        PasswordCheck::new(password.as_bytes()).accepts(&metadata)
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
        let check = PasswordCheck::new(b"old");
        let copy = check.clone();
        check.change(b"new");
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
