//! `tellerd run`: the daemon.

use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::config::Config;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    actix::System::new().block_on(app::run(config))?;
    Ok(ExitCode::SUCCESS)
}
