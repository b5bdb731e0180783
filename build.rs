//! Compiles `proto/mirrorbits.proto` into the RPC client, server and messages, without an installed protoc, and directs
//! liburing's set-up of rings to `src/shard/rt/ring_setup.rs`.

use std::path::PathBuf;
use std::{env, error, fs};

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=proto/mirrorbits.proto");
    println!("cargo::rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file("mirrorbits.proto")?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out_dir.join("mirrorbits.fds"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
