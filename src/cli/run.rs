//! `tellerd run`: the daemon; and `tellerd emulate run`: the same on a disk that misbehaves on command.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::app::{self, Instead};
use crate::config::Config;
use crate::journal::{Options, WrapFile};
use crate::sim::disk::Disk;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    on(Options::default().wrap, file)
}

pub(super) fn on_a_disk(file: &Path, command: &Path) -> anyhow::Result<ExitCode> {
    let disk = Disk::new(command);
    disk.opened().context("the emulated disk")?;
    tracing::warn!(commands = %command.display(), "the journal is on an emulated disk, for simulations only");
    on(disk.wrap(), file)
}

fn on(wrap: WrapFile, file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    app::run(config, wrap, Instead::default())?;
    Ok(ExitCode::SUCCESS)
}
