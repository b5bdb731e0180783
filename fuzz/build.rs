//! Directs liburing's set-up of rings to `src/shard/rt/ring_setup.rs`, as the build of the programs does.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
