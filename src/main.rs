//! The `tellerd` program: see `tellerd --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tellerd::cli::run()
}
