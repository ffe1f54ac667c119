//! What is shown while a simulation runs: one line, rewritten on a terminal, plain lines elsewhere.
//!
//! Run by the runner. It only reads.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::world::{World, read};

const REWRITE: Duration = Duration::from_millis(500);
const LINES: Duration = Duration::from_secs(5);

/// Prints a line, whoever may read it.
pub fn say(line: &str) {
    _ = writeln!(io::stdout(), "{line}");
}

/// Shows how it goes until dropped.
pub async fn show(world: Arc<World>, duration: Duration) {
    let begun = Instant::now();
    let terminal = io::stdout().is_terminal();
    loop {
        sleep(if terminal { REWRITE } else { LINES }).await;
        let line = line(&world, begun.elapsed(), duration);
        if terminal {
            // Back to the start of the line, and away with what is left of the one before.
            _ = write!(io::stdout(), "\r{line}\x1b[K");
            _ = io::stdout().flush();
        } else {
            say(&line);
        }
    }
}

/// Ends the rewritten line.
pub fn done() {
    if io::stdout().is_terminal() {
        say("");
    }
}

fn line(world: &World, elapsed: Duration, duration: Duration) -> String {
    let figures = &world.figures;
    let (faults, notes) = world.happened();
    let faults: u64 = faults.values().sum();
    let when = if *world.closed.borrow() {
        "closing".to_owned()
    } else if elapsed < duration {
        format!("{:3} of {} s", elapsed.as_secs(), duration.as_secs())
    } else {
        format!("{:3} s", elapsed.as_secs())
    };
    format!(
        "{when}: {} started, {} completed, {} canceled, {notes} notes out, {faults} faults, {} kills, {} operator visits",
        read(&figures.started),
        read(&figures.completed),
        read(&figures.canceled),
        read(&figures.kills) + read(&figures.server_kills),
        read(&figures.services) + read(&figures.decided),
    )
}
