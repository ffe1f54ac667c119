//! Crash points for the crash test: the process aborts at a point of its choice.
//!
//! Only in builds with debug assertions; in a release build [`point`] is nothing. `TELLERD_CRASH_AT` is `NAME#K`, the
//! k-th passing of the point of this name, or a number, counted over all points; both from 1. `TELLERD_CRASH_LOG=FILE`
//! appends `NAME#K` for each point that is passed. See CONTRIBUTING.md.

/// A place where the test may end the process. Costs nothing in a release build.
#[inline]
pub fn point(name: impl std::fmt::Display) {
    #[cfg(debug_assertions)]
    armed::pass(&name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::{LazyLock, Mutex, PoisonError};

    /// Passed so far: all points, and those of each name.
    static PASSED: LazyLock<Mutex<(u64, HashMap<String, u64>)>> = LazyLock::new(Mutex::default);
    static AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("TELLERD_CRASH_AT").ok());
    static LOG: LazyLock<Option<std::ffi::OsString>> = LazyLock::new(|| std::env::var_os("TELLERD_CRASH_LOG"));

    pub(super) fn pass(name: &dyn std::fmt::Display) {
        if AT.is_none() && LOG.is_none() {
            return;
        }
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        passed.0 += 1;
        let number = passed.0.to_string();
        let times = passed.1.entry(name.to_string()).or_default();
        *times += 1;
        let point = format!("{name}#{times}");
        if let Some(path) = LOG.as_ref()
            && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
        {
            let _ = writeln!(file, "{point}");
        }
        if AT.as_ref().is_some_and(|at| *at == point || *at == number) {
            std::process::abort();
        }
    }
}
