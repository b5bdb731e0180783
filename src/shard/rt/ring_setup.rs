//! Flags for glommio's rings, which glommio has no setting for.
//!
//! Without them the kernel interrupts a shard for every completion, to run work that could as well run at the shard's next
//! system call; that costs more than a third of a request. glommio makes its rings by liburing, which it links statically:
//! the linker directs liburing's call of `__sys_io_uring_setup` here (`--wrap`, see `build.rs`).

use std::ffi::{c_int, c_uint};

use rustix::io_uring::{IoringSetupFlags, io_uring_params};

/// Linux 5.19 or newer. `COOP_TASKRUN`: work waits for the next system call of the shard's thread. `TASKRUN_FLAG`: the ring
/// shows that there is some.
const FLAGS: IoringSetupFlags = IoringSetupFlags::COOP_TASKRUN.union(IoringSetupFlags::TASKRUN_FLAG);

#[expect(improper_ctypes, reason = "rustix's structure is the kernel's, which may grow")]
unsafe extern "C" {
    /// liburing's own.
    fn __real___sys_io_uring_setup(entries: c_uint, parameters: *mut io_uring_params) -> c_int;
}

/// Makes a ring with [`FLAGS`] besides those asked for, or without them where the kernel refuses them.
///
/// # Safety
/// As liburing's: `parameters` points to parameters that nobody else uses.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: c_uint, parameters: *mut io_uring_params) -> c_int {
    // SAFETY: the caller's promise.
    let asked = unsafe { *parameters };
    // SAFETY: likewise.
    unsafe { (*parameters).flags |= FLAGS };
    // SAFETY: likewise; the function wants what this one was given.
    let ring = unsafe { __real___sys_io_uring_setup(entries, parameters) };
    if ring >= 0 {
        return ring;
    }
    // SAFETY: as above.
    unsafe { *parameters = asked };
    // SAFETY: as above. Where the flags were not to blame, this fails in the same way and leaves its errno.
    unsafe { __real___sys_io_uring_setup(entries, parameters) }
}
