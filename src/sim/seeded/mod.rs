//! The deterministic simulation: the real daemon in a world that is a function of a seed.
//!
//! The daemon is what `tellerd run` brings up: actors, pure machines, policies, supervision, journal on real files, drivers, the
//! fold of the store; all on one thread, in tokio's paused time, with the seed's chance. Around it are doubles, and each tells at
//! the top of its file which faults it makes: `node` and `stream` the way to LND, `chain` LND itself on the rules of
//! `sim::lnd::node`, `device` the emulated dispensers, `disk` the disk, `gate` and `life` deaths of the daemon and of its
//! actors, `people` customers and the operator. `rules` checks DESIGN.md section 1 at every step, and at the end the audit of
//! `tellerd simulate` looks at everything.
//!
//! Called by `tellerd simulate --deterministic` and by tests. What must stay true: the same seed makes the same history, in
//! every process, so that a violation can be repeated. Results: docs/RELIABILITY.md.

mod chain;
mod chance;
mod decisions;
mod device;
mod disk;
mod gate;
mod life;
mod node;
mod panics;
mod people;
pub mod plan;
mod report;
pub mod rules;
mod run;
mod scene;
mod shrink;
mod stream;

use std::path::PathBuf;

use thiserror::Error;

use crate::config::ConfigErrors;

pub use plan::{Kind, Plan};
pub use report::{Sum, Told, many, one};
pub use run::{Outcome, run};
pub use scene::Figures;
pub use shrink::{Small, shrink};

/// Why there is no history.
#[derive(Debug, Error)]
pub enum SeededError {
    /// The plan makes no configuration: a mistake of the simulation.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Its folder.
    #[error("{dir}: {source}")]
    Folder {
        /// Which.
        dir: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The runtime.
    #[error("the runtime: {0}")]
    Runtime(std::io::Error),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(String),
}
