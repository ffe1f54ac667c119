//! The `tellerd` program: see `tellerd --help`.

fn main() {}
