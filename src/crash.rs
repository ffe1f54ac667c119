//! Crash points for the crash test: the process aborts at the n-th point it passes.
//!
//! Only in builds with debug assertions; in a release build [`point`] is nothing. `TELLERD_CRASH_AT=N` aborts
//! at point N, `TELLERD_CRASH_LOG=FILE` appends the name of each point that is passed.

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
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("TELLERD_CRASH_AT").ok().and_then(|n| n.parse().ok()));
    static LOG: LazyLock<Option<std::ffi::OsString>> = LazyLock::new(|| std::env::var_os("TELLERD_CRASH_LOG"));

    pub(super) fn pass(name: &dyn std::fmt::Display) {
        if AT.is_none() && LOG.is_none() {
            return;
        }
        let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(path) = LOG.as_ref()
            && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
        {
            let _ = writeln!(file, "{name}");
        }
        if *AT == Some(number) {
            std::process::abort();
        }
    }
}
