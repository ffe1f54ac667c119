//! What differs between LND's releases, by the version that `GetInfo` names. Pure.
//!
//! Called by the client, before it asks what an old node would answer at length, and by [`super::verdict`].
//! Source: `lncfg/config.go`, `lncfg/invoices.go` and `GetDebugInfo` in `rpcserver.go` of v0.20.2-beta and v0.21.2-beta.

/// Major and minor number.
pub type Line = (u32, u32);

/// The oldest line that tellerd knows.
pub const OLDEST: Line = (0, 20);
/// The newest line that tellerd was tried with.
pub const NEWEST: Line = (0, 21);

/// The line of `0.21.2-beta commit=…`; `None` when the text does not begin with one.
#[must_use]
pub fn parse(version: &str) -> Option<Line> {
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether `GetDebugInfo` leaves the log out unless it is asked for. Before 0.21 the whole log came with it.
#[must_use]
pub fn tells_its_settings(line: Line) -> bool {
    line >= (0, 21)
}

/// Blocks before an HTLC's expiry at which LND goes on chain for it, if it knows the preimage.
#[must_use]
pub fn broadcast_delta(line: Line) -> u32 {
    if line >= (0, 21) { 16 } else { 10 }
}

/// `invoices.holdexpirydelta` unless it is set.
#[must_use]
pub fn default_hold_expiry_delta(line: Line) -> u32 {
    broadcast_delta(line) + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ordered_as_numbers() {
        assert_eq!(parse("0.21.2-beta commit=v0.21.2-beta"), Some((0, 21)));
        assert_eq!(parse("0.9.1"), Some((0, 9)));
        assert!(parse("0.9.1") < parse("0.20.0-beta"));
        for text in ["", "beta", "v0.21", "0", "0.x.1", "99999999999.1.1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_default_delta_by_line() {
        assert_eq!([(0, 20), (0, 21), (0, 22)].map(default_hold_expiry_delta), [12, 18, 18]);
    }
}
