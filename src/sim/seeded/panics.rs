//! Panics that nobody ordered: supervision heals them, and nobody would notice.
//!
//! Called by [`super::run`]. A history is one thread, so its panics are those of its thread. What must stay true: every panic is
//! still told by the hook that was there before.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

/// What the panics say that are faults ([`super::Kind::Panic`]).
const ORDERED: &str = "a panic was ordered";

thread_local! {
    /// The first one of this thread's present history.
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn note(info: &PanicHookInfo<'_>) {
    if info.payload_as_str() == Some(ORDERED) {
        return;
    }
    // Its thread may be ending, and with it this place.
    _ = FIRST.try_with(|first| {
        first.borrow_mut().get_or_insert_with(|| info.to_string());
    });
}

/// Watches for them from now on.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info);
            former(info);
        }));
    });
    FIRST.take();
}

/// The first one since.
pub fn unordered() -> Option<String> {
    FIRST.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_noticed_unless_it_was_ordered() {
        watch();
        assert!(panic::catch_unwind(|| panic!("a panic was ordered")).is_err());
        assert_eq!(unordered(), None);
        let number = 7;
        assert!(panic::catch_unwind(|| panic!("a bug, number {number}")).is_err());
        let found = unordered().unwrap();
        assert!(
            found.contains("a bug, number 7") && found.contains("panics.rs"),
            "{found}"
        );
        assert_eq!(unordered(), None);
    }
}
