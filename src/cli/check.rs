//! `tellerd check`: the configuration, key by key.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    let atms: Vec<&str> = config.atms.iter().map(|atm| atm.id.as_str()).collect();
    let atms = if atms.is_empty() {
        "none".to_owned()
    } else {
        atms.join(", ")
    };
    println!("{}: valid; ATMs: {atms}", file.display());
    Ok(ExitCode::SUCCESS)
}
