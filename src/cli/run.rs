//! `tellerd run`: the daemon.

use std::path::Path;
use std::process::ExitCode;

use crate::app::{self, Instead};
use crate::config::Config;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    app::run(config, Instead::default())?;
    Ok(ExitCode::SUCCESS)
}
