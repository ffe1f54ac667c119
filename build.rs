//! Compiles the protos with protox: no `protoc` has to be installed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["proto/lnd", "proto/sim"] {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ext| ext == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    let descriptors = protox::compile(files, ["proto/lnd", "proto/sim"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
