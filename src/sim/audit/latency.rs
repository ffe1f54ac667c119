//! How long things took, by the customers' clocks and the two ledgers.
//!
//! Called for the report. What must stay true: no figure comes from the daemon. All clocks are this process's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Facts, Visit};
use crate::sim::lnd::node::record::InvoiceState;

/// Two quantiles of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 of 100 took no longer.
    pub p99: u64,
}

/// Latencies by stage, in milliseconds; a stage that never happened is left out.
#[must_use]
pub fn stages(visits: &[Visit], facts: &Facts) -> BTreeMap<&'static str, Quantiles> {
    let mut samples: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    let mut took = |stage, duration| samples.entry(stage).or_default().push(duration);
    for visit in visits {
        if let Some(shown) = visit.shown_at {
            took("asked_to_invoice", shown.since(visit.asked_at));
        }
    }
    for fact in &facts.cashouts {
        let first = fact.dispenses.iter().filter_map(|d| d.first_note_at).min();
        let last = fact.dispenses.iter().filter_map(|d| d.last_note_at).max();
        if let (Some(held), Some(first)) = (fact.held_at, first) {
            took("paid_to_first_note", first.since(held));
        }
        match (fact.state, last, fact.dispenses.last()) {
            (InvoiceState::Settled, Some(last), _) => took("last_note_to_settled", fact.since.since(last)),
            (InvoiceState::Canceled, _, Some(failed)) => {
                let ended = failed.ended_at.unwrap_or(failed.at);
                took("failed_dispense_to_refund", fact.since.since(ended));
            }
            _ => {}
        }
    }
    samples
        .into_iter()
        .map(|(stage, took)| (stage, quantiles(took)))
        .collect()
}

fn quantiles(mut took: Vec<Duration>) -> Quantiles {
    took.sort_unstable();
    let at = |percent: usize| {
        // The smallest value that so many percent do not exceed.
        let rank = (took.len() * percent).div_ceil(100).saturating_sub(1);
        let value = took.get(rank).copied().unwrap_or_default();
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX)
    };
    Quantiles {
        p50: at(50),
        p99: at(99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let ms = |range: std::ops::RangeInclusive<u64>| range.map(Duration::from_millis).collect();
        assert_eq!(quantiles(ms(1..=100)), Quantiles { p50: 50, p99: 99 });
        assert_eq!(quantiles(ms(7..=7)), Quantiles { p50: 7, p99: 7 });
        assert_eq!(quantiles(ms(1..=3)), Quantiles { p50: 2, p99: 3 });
    }
}
