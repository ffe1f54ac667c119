//! How many blocks a held payment still has before LND cancels it by itself. Pure.
//!
//! Called by the machines' events (through the actors) on each block and right before a dispense.
//! Source: fact sheet sections 1 and 4; lnd v0.21.2-beta cancels an ACCEPTED hold invoice when
//! `height + holdexpirydelta >= E`, E being the lowest `expiry_height` among its ACCEPTED HTLCs.

/// LND's own `holdexpirydelta` from v0.21 on (it was 12 before). A setting, because only `GetDebugInfo` tells it, which may not
/// be allowed.
pub const DEFAULT_HOLD_EXPIRY_DELTA: u32 = 18;

/// Blocks until LND cancels: `expiry_height - hold_expiry_delta - height`.
/// At 1 a settle can still commit; at 0 or below LND cancels, or already has.
#[must_use]
pub fn blocks_left(expiry_height: u32, hold_expiry_delta: u32, height: u32) -> i64 {
    i64::from(expiry_height) - i64::from(hold_expiry_delta) - i64::from(height)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LND's rule as it is written in the sheet.
    fn lnd_cancels(expiry_height: u32, delta: u32, height: u32) -> bool {
        u64::from(height) + u64::from(delta) >= u64::from(expiry_height)
    }

    #[test]
    fn counts_down_to_lnds_own_cancel() {
        assert_eq!(blocks_left(800_080, 18, 800_000), 62);
        assert_eq!(blocks_left(800_080, 18, 800_061), 1);
        assert_eq!(blocks_left(800_080, 18, 800_062), 0);
        assert_eq!(blocks_left(800_080, 18, 800_063), -1);
        assert_eq!(blocks_left(800_024, 18, 800_000), 6, "the minimum final CLTV delta");
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(blocks_left(0, u32::MAX, u32::MAX), -2 * i64::from(u32::MAX));
        assert_eq!(blocks_left(u32::MAX, 0, 0), i64::from(u32::MAX));
        assert_eq!(blocks_left(0, 0, 0), 0);
    }

    proptest::proptest! {
        #[test]
        fn positive_exactly_while_lnd_does_not_cancel(e: u32, delta: u32, height: u32) {
            proptest::prop_assert_eq!(blocks_left(e, delta, height) <= 0, lnd_cancels(e, delta, height));
        }
    }
}
