//! What a dispenser's report proves. A report that contradicts itself proves nothing.

use crate::hardware::{DispenseOrder, DispenseReport, Outcome};
use crate::money::Minor;

/// The meaning of a report for the customer's money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assessed {
    /// Every note ordered was delivered.
    Complete,
    /// Notes of this value, more than none and less than all, were delivered.
    Partial(Minor),
    /// No note was delivered; the cassettes that are at fault, if the device named them.
    Nothing(Vec<u8>),
    /// Not proven.
    Unknown {
        /// Why.
        reason: String,
        /// Value of the notes the device counted out, at least.
        at_least: Minor,
    },
}

/// Reads `report` against `order`, trusting the outcome only as far as the counts bear it out.
#[must_use]
pub fn assess(order: &DispenseOrder, report: &DispenseReport) -> Assessed {
    let delivered = report.delivered_value();
    let unknown = |reason: &str| Assessed::Unknown {
        reason: reason.to_owned(),
        at_least: delivered,
    };
    if let Outcome::Unknown { reason } = &report.outcome {
        return unknown(reason);
    }
    if let Some(contradiction) = contradiction(order, report) {
        return unknown(&contradiction);
    }
    let all = order
        .cassettes
        .iter()
        .all(|c| delivered_from(report, c.position) == c.notes);
    match &report.outcome {
        Outcome::Complete if all => Assessed::Complete,
        Outcome::Partial { .. } if all => Assessed::Complete,
        Outcome::NothingMoved { fault } if delivered == Minor::ZERO => {
            Assessed::Nothing(fault.position.into_iter().collect())
        }
        Outcome::Partial { .. } if delivered > Minor::ZERO => Assessed::Partial(delivered),
        Outcome::Partial { fault } => Assessed::Nothing(fault.position.into_iter().collect()),
        _ => unknown("the counts do not bear out the reported outcome"),
    }
}

fn delivered_from(report: &DispenseReport, position: u8) -> u32 {
    report
        .cassettes
        .iter()
        .filter(|c| c.position == position)
        .fold(0, |sum, c| sum.saturating_add(c.delivered))
}

fn contradiction(order: &DispenseOrder, report: &DispenseReport) -> Option<String> {
    for (index, cassette) in report.cassettes.iter().enumerate() {
        let position = cassette.position;
        if report.cassettes[..index].iter().any(|c| c.position == position) {
            return Some(format!("cassette {position} is reported twice"));
        }
        let ordered = order.cassettes.iter().find(|c| c.position == position);
        let notes = ordered.map_or(0, |c| c.notes);
        if ordered.is_some_and(|c| c.denomination != cassette.denomination) {
            return Some(format!("cassette {position} is reported with another denomination"));
        }
        if cassette.delivered > notes {
            return Some(format!(
                "cassette {position} delivered {} of {notes} notes ordered",
                cassette.delivered
            ));
        }
        if cassette.unaccounted > 0 {
            return Some(format!(
                "{} notes of cassette {position} are unaccounted for",
                cassette.unaccounted
            ));
        }
    }
    None
}
