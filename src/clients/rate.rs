//! How often a key may ask: a bucket of tokens for each.
//!
//! Pure: time comes in. What must stay true: in any minute a key gets through at most its requests per minute and one
//! burst; there are never more than [`MOST_KEYS`] buckets, whoever asks.

use std::collections::HashMap;

use super::Roster;
use crate::ids::NostrKey;
use crate::time::UnixMs;

/// More keys than this are not served at once. A roster is far smaller.
pub const MOST_KEYS: usize = 10_000;

/// What one request costs. A bucket gains its requests per minute in each millisecond, so that all numbers are whole.
const REQUEST: i64 = 60_000;
/// Requests at once that are never too many, when the minute allows for them.
const LEAST_BURST: u32 = 5;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Below zero: so much was asked at once.
    level: i64,
    at: UnixMs,
}

/// The buckets of all keys that asked.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    buckets: HashMap<NostrKey, Bucket>,
}

impl Rates {
    /// Whether `key` may ask at `now`; if so, that request is counted. Meant for keys of the roster: a key that nobody
    /// knows gets a bucket too.
    pub fn take(&mut self, key: &NostrKey, per_minute: u32, now: UnixMs) -> bool {
        let full = full(per_minute);
        let mut bucket = match self.buckets.get(key) {
            Some(bucket) => bucket.filled(per_minute, now),
            None if self.buckets.len() < MOST_KEYS => Bucket { level: full, at: now },
            None => return false,
        };
        let may = bucket.level >= REQUEST;
        if may {
            bucket.level -= REQUEST;
        }
        self.buckets.insert(*key, bucket);
        may
    }

    /// Counts `requests` more of `key`, which came inside one that it was let through with: it waits for them later.
    pub fn owe(&mut self, key: &NostrKey, requests: usize) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            let cost = i64::try_from(requests).unwrap_or(i64::MAX).saturating_mul(REQUEST);
            bucket.level = bucket.level.saturating_sub(cost);
        }
    }

    /// How many keys have a bucket.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Forgets the keys that are not in `roster`, as after each change of it.
    pub fn keep(&mut self, roster: &Roster) {
        self.buckets.retain(|key, _| roster.knows(key));
    }
}

impl Bucket {
    /// As it is at `now`. A clock that was set back fills nothing and takes nothing.
    fn filled(self, per_minute: u32, now: UnixMs) -> Self {
        let passed = now.0.saturating_sub(self.at.0);
        let gained = passed.saturating_mul(u64::from(per_minute));
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        Self {
            level: self.level.saturating_add(gained).min(full(per_minute)),
            at: now,
        }
    }
}

/// A quarter of a minute's requests at once, at least [`LEAST_BURST`], at most the whole.
fn full(per_minute: u32) -> i64 {
    let burst = (per_minute / 4).max(LEAST_BURST).min(per_minute);
    i64::from(burst) * REQUEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clients::{Book, Limits, Operator, Role};

    const KEY: NostrKey = NostrKey([1; 32]);

    fn taken(rates: &mut Rates, per_minute: u32, times: impl IntoIterator<Item = u64>) -> usize {
        let times = times.into_iter();
        times.filter(|at| rates.take(&KEY, per_minute, UnixMs(*at))).count()
    }

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        for (per_minute, burst) in [(0, 0), (1, 1), (5, 5), (8, 5), (120, 30), (u32::MAX, 1_000)] {
            let mut rates = Rates::default();
            assert_eq!(taken(&mut rates, per_minute, [7; 1_000]), burst, "{per_minute}");
        }
        let mut rates = Rates::default();
        assert_eq!(taken(&mut rates, 120, [0; 40]), 30);
        assert_eq!(taken(&mut rates, 120, [499, 500, 501, 1_000]), 2, "one in 500 ms");
        assert_eq!(
            taken(&mut rates, 120, [600_000; 40]),
            30,
            "no more than a burst is saved up"
        );
    }

    #[test]
    fn what_came_at_once_is_waited_for_later() {
        let mut rates = Rates::default();
        rates.owe(&KEY, 9);
        assert_eq!(taken(&mut rates, 60, [0; 40]), 15, "whoever asked nothing owes nothing");
        rates.owe(&KEY, 9);
        assert_eq!(taken(&mut rates, 60, [0, 1_000, 9_999]), 0);
        assert_eq!(
            taken(&mut rates, 60, [10_000, 10_000, 11_000]),
            2,
            "one in a second again"
        );
    }

    #[test]
    fn a_clock_that_jumps_gives_nothing_away() {
        let mut rates = Rates::default();
        assert_eq!(taken(&mut rates, 120, [u64::MAX; 40]), 30);
        assert_eq!(taken(&mut rates, 120, [0; 40]), 0);
        assert_eq!(
            taken(&mut rates, 120, [500]),
            1,
            "it goes on from the time it is set to"
        );
    }

    #[test]
    fn keys_do_not_share_and_are_bounded() {
        let mut rates = Rates::default();
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            NostrKey(bytes)
        };
        for n in 0..MOST_KEYS {
            assert!(rates.take(&key(n), 1, UnixMs(0)) && !rates.take(&key(n), 1, UnixMs(0)));
        }
        assert!(!rates.take(&key(MOST_KEYS), 1, UnixMs(0)));
        let operator = Operator {
            name: "ada".parse().unwrap(),
            key: key(3),
            role: Role::Viewer,
        };
        let limits = Limits::NONE;
        rates.keep(&Roster::new(&[], limits, &[operator], &Book::default()));
        assert!(
            !rates.take(&key(3), 1, UnixMs(0)),
            "it is not forgotten what a known key has used"
        );
        assert!(rates.take(&key(MOST_KEYS), 1, UnixMs(0)));
        assert_eq!(rates.buckets.len(), 2);
    }

    proptest! {
        #[test]
        fn never_more_than_the_minutes_and_one_burst(
            per_minute in 0_u32..500,
            steps in proptest::collection::vec(0_u64..3_000, 1..400),
        ) {
            let mut now = 0;
            let times: Vec<u64> = steps.iter().map(|step| { now += step; now }).collect();
            let lasted = now - times[0];
            let gained = i64::try_from(lasted * u64::from(per_minute)).unwrap();
            let most = (full(per_minute) + gained) / REQUEST + 1;
            prop_assert!(taken(&mut Rates::default(), per_minute, times) as i64 <= most);
        }

        #[test]
        fn who_keeps_the_pace_is_never_refused(per_minute in 1_u32..100_000, count in 1_usize..300) {
            let pace = REQUEST.cast_unsigned().div_ceil(u64::from(per_minute));
            let times = (0..count).map(|n| n as u64 * pace);
            prop_assert_eq!(taken(&mut Rates::default(), per_minute, times), count);
        }
    }
}
