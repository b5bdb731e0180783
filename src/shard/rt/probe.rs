//! Whether this process may use io_uring, and if not, why and what to do.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Locked memory that glommio asks for before it starts.
const LOCKED_MEMORY_NEEDED: u64 = 512 * 1024;

/// Why io_uring is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `kernel.io_uring_disabled` is set.
    #[error(
        "io_uring is switched off on this host (kernel.io_uring_disabled = {0}); switch it on with `sysctl \
         kernel.io_uring_disabled=0`"
    )]
    SwitchedOff(String),
    /// A seccomp filter refuses the system call.
    #[error(
        "io_uring is refused by a security filter (io_uring_setup: {0}); container runtimes block it by default: allow \
         io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile (Docker: \
         --security-opt seccomp=PROFILE; systemd: SystemCallFilter=io_uring_setup io_uring_enter io_uring_register)"
    )]
    Filtered(Errno),
    /// The kernel has none.
    #[error("this kernel has no io_uring ({release}); Linux 5.8 or newer is needed")]
    Missing {
        /// The kernel's release.
        release: String,
    },
    /// Too little memory may be locked.
    #[error(
        "only {allowed} bytes of memory may be locked and io_uring needs {LOCKED_MEMORY_NEEDED}; raise the limit \
         (systemd: LimitMEMLOCK=8M; shell: ulimit -l 8192)"
    )]
    LockedMemory {
        /// The limit.
        allowed: u64,
    },
    /// Anything else.
    #[error("io_uring cannot be used: {0}")]
    Other(Errno),
}

/// Raises the soft limit of locked memory as far as allowed and makes a small ring to see whether it works.
///
/// # Errors
/// [`Refusal`].
pub fn io_uring() -> Result<(), Refusal> {
    let limit = getrlimit(Resource::Memlock);
    let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Some(allowed) = getrlimit(Resource::Memlock).current.filter(|&allowed| allowed < LOCKED_MEMORY_NEEDED) {
        return Err(Refusal::LockedMemory { allowed });
    }
    let mut parameters = rustix::io_uring::io_uring_params::default();
    // SAFETY: the parameters are zeroed, which asks for a plain ring and hands no descriptors or memory over.
    match unsafe { rustix::io_uring::io_uring_setup(4, &mut parameters) } {
        Ok(_ring) => Ok(()),
        Err(error) => Err(explain(error)),
    }
}

fn explain(error: Errno) -> Refusal {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match (error, switch.trim()) {
        (Errno::PERM, value @ ("1" | "2")) => Refusal::SwitchedOff(value.to_owned()),
        (Errno::PERM | Errno::ACCESS, _) => Refusal::Filtered(error),
        // A filter may also claim that there is no such call, on a kernel that has it.
        (Errno::NOSYS, "0" | "1" | "2") => Refusal::Filtered(error),
        (Errno::NOSYS, _) => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            Refusal::Missing { release }
        }
        (Errno::NOMEM, _) => {
            let allowed = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
            Refusal::LockedMemory { allowed }
        }
        (other, _) => Refusal::Other(other),
    }
}
