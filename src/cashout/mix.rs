//! The note mix: which notes make up an amount exactly.

use std::collections::HashMap;

use super::ledger::Stock;
use crate::hardware::{CassetteOrder, DispenseOrder};
use crate::money::Minor;

/// The mix with the fewest notes that makes up `amount` exactly from `stock`, with at most `max_notes`.
/// Among equals the one that takes large notes first. `None` when there is none.
///
/// Exact, unlike a greedy choice: 60 from 50s and 20s is three 20s.
#[must_use]
pub fn mix(amount: Minor, stock: &[Stock], max_notes: u32) -> Option<DispenseOrder> {
    if amount == Minor::ZERO {
        return None;
    }
    let mut usable: Vec<Stock> = stock
        .iter()
        .copied()
        .filter(|s| s.notes > 0 && s.denomination.0 > 0)
        .collect();
    usable.sort_by(|a, b| b.denomination.cmp(&a.denomination).then(b.notes.cmp(&a.notes)));
    let mut search = Search {
        stock: &usable,
        dead: HashMap::new(),
    };
    // Iterative deepening on the number of notes: the first hit is a smallest one.
    let most = max_notes.min(usable.iter().fold(0, |sum, s| sum.saturating_add(s.notes)));
    let counts = (1..=most).find_map(|notes| search.exactly(0, amount.0, notes))?;
    let mut cassettes: Vec<CassetteOrder> = usable
        .iter()
        .zip(counts)
        .filter(|(_, notes)| *notes > 0)
        .map(|(s, notes)| CassetteOrder {
            position: s.position,
            denomination: s.denomination,
            notes,
        })
        .collect();
    cassettes.sort_unstable_by_key(|c| c.position);
    Some(DispenseOrder { cassettes })
}

struct Search<'a> {
    stock: &'a [Stock],
    /// Sub-problems known to have no answer: (first cassette, amount, notes).
    dead: HashMap<(usize, u64, u32), ()>,
}

impl Search<'_> {
    /// Counts for the cassettes from `first` on that make up `amount` with exactly `notes` notes.
    fn exactly(&mut self, first: usize, amount: u64, notes: u32) -> Option<Vec<u32>> {
        if first == self.stock.len() {
            return (amount == 0 && notes == 0).then(Vec::new);
        }
        if self.dead.contains_key(&(first, amount, notes)) {
            return None;
        }
        let stock = self.stock[first];
        let by_value = u32::try_from(amount / stock.denomination.0).unwrap_or(u32::MAX);
        for take in (0..=stock.notes.min(notes).min(by_value)).rev() {
            let rest = amount - stock.denomination.0 * u64::from(take);
            if let Some(mut counts) = self.exactly(first + 1, rest, notes - take) {
                counts.insert(0, take);
                return Some(counts);
            }
        }
        self.dead.insert((first, amount, notes), ());
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stock(notes: &[(u64, u32)]) -> Vec<Stock> {
        let cassette = |(i, (denomination, notes)): (usize, &(u64, u32))| Stock {
            position: u8::try_from(i + 1).unwrap(),
            denomination: Minor(*denomination),
            notes: *notes,
        };
        notes.iter().enumerate().map(cassette).collect()
    }

    #[test]
    fn greedy_would_fail_here() {
        let order = mix(Minor(6_000), &stock(&[(5_000, 10), (2_000, 10)]), 40).expect("three 20s");
        assert_eq!(order.cassettes.len(), 1);
        assert_eq!((order.cassettes[0].position, order.cassettes[0].notes), (2, 3));
    }

    #[test]
    fn no_mix_is_none() {
        assert_eq!(mix(Minor(3_000), &stock(&[(5_000, 10), (2_000, 10)]), 40), None);
        assert_eq!(mix(Minor(6_000), &stock(&[(2_000, 2)]), 40), None);
        assert_eq!(mix(Minor(6_000), &stock(&[(2_000, 9)]), 2), None);
        assert_eq!(mix(Minor::ZERO, &stock(&[(2_000, 9)]), 2), None);
        assert_eq!(mix(Minor(1), &[], 2), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_enumeration(
            amount in 1_u64..40,
            notes in proptest::collection::vec((1_u64..8, 0_u32..5), 1..4),
            max in 1_u32..12,
        ) {
            let stock = stock(&notes);
            let mut best: Option<u32> = None;
            let ranges: Vec<u32> = stock.iter().map(|s| s.notes + 1).collect();
            for mut code in 0..ranges.iter().product::<u32>() {
                let (mut value, mut count) = (0, 0);
                for (s, range) in stock.iter().zip(&ranges) {
                    let take = code % range;
                    code /= range;
                    value += s.denomination.0 * u64::from(take);
                    count += take;
                }
                if value == amount && count > 0 && count <= max {
                    best = Some(best.map_or(count, |b| b.min(count)));
                }
            }
            let found = mix(Minor(amount), &stock, max);
            prop_assert_eq!(found.as_ref().map(DispenseOrder::notes), best);
            if let Some(order) = found {
                prop_assert_eq!(order.value(), Minor(amount));
                for c in &order.cassettes {
                    prop_assert!(stock.iter().any(|s| s.position == c.position && s.notes >= c.notes));
                }
            }
        }
    }
}
