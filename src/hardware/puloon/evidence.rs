//! What counts of an LCDM-4000 prove about an order. Pure.
//!
//! Called by the driver. Must stay true: an outcome is only Complete, Partial or NothingMoved when
//! the device's counts are consistent and could not have come about without this order.
//! Source: puloon-lcdm.md, section B ("After a HOST crash") and C (serial number).

use serde::{Deserialize, Serialize};

use super::command::{Command, fault, is_known};
use super::reply::{CASSETTES, Counts, LastStatus, NOTICE_NEAR_END};
use crate::hardware::{CassetteReport, DispenseOrder, DispenseReport, Fault, Marker, Outcome, Recovery};
use crate::money::Minor;

/// The device's counters before a dispense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its last result.
    pub last: LastStatus,
    /// Its last serial number, in the serial variant.
    pub serial: Option<u8>,
}

impl Mark {
    /// Reads a marker; `None` when this driver did not make it.
    pub fn read(marker: &Marker) -> Option<Self> {
        Self::deserialize(&marker.0).ok()
    }

    /// For the journal.
    pub fn write(&self) -> Result<Marker, serde_json::Error> {
        serde_json::to_value(self).map(Marker)
    }
}

/// Whether `last` as the state before `order` would leave open, after a crash, if `order` was carried out:
/// when `order` could produce it again, and when a device that lost its power could (which has no last result).
pub fn is_ambiguous(order: &DispenseOrder, last: &LastStatus) -> bool {
    if last.about == Command::Dispense.code() {
        (1..=4u8)
            .zip(last.counts.exit)
            .all(|(position, exit)| u32::from(exit) <= requested(order, position))
    } else {
        last.about != Command::Purge.code()
    }
}

fn requested(order: &DispenseOrder, position: u8) -> u32 {
    order
        .cassettes
        .iter()
        .filter(|c| c.position == position)
        .fold(0, |sum, c| sum.saturating_add(c.notes))
}

/// The report of a dispense that ended with `counts`.
pub fn report(order: &DispenseOrder, counts: &Counts) -> DispenseReport {
    DispenseReport {
        cassettes: cassettes(order, counts),
        outcome: outcome(order, counts),
    }
}

/// The report of an order of which no note moved; `why` says how that is known.
pub fn nothing_moved(order: &DispenseOrder, why: impl Into<String>) -> DispenseReport {
    let mut report = DispenseReport::unknown(order, "");
    report.outcome = Outcome::NothingMoved {
        fault: Fault {
            code: 0,
            text: why.into(),
            position: None,
        },
    };
    report
}

fn cassettes(order: &DispenseOrder, counts: &Counts) -> Vec<CassetteReport> {
    let mut reports = Vec::with_capacity(CASSETTES);
    for (position, (exit, reject)) in (1..=4u8).zip(counts.exit.iter().zip(counts.reject)) {
        let requested = requested(order, position);
        if requested == 0 && *exit == 0 && reject == 0 {
            continue;
        }
        let ordered = order.cassettes.iter().find(|c| c.position == position);
        reports.push(CassetteReport {
            position,
            denomination: ordered.map_or(Minor::ZERO, |c| c.denomination),
            requested,
            // More than was asked for is a contradiction; the lower bound does not rest on it.
            delivered: u32::from(*exit).min(requested),
            rejected: u32::from(reject),
            unaccounted: 0,
        });
    }
    reports
}

fn outcome(order: &DispenseOrder, counts: &Counts) -> Outcome {
    let delivered: u32 = counts.exit.iter().map(|n| u32::from(*n)).sum();
    let asked = order.notes();
    let Counts { error, exit, reject } = counts;
    let unknown = |what: &str| Outcome::Unknown {
        reason: format!(
            "{what}: error 0x{error:02X} ({}), delivered {exit:?}, rejected {reject:?}",
            fault(*error).text
        ),
    };
    let too_many = (1..=4u8)
        .zip(exit)
        .any(|(position, exit)| u32::from(*exit) > requested(order, position));
    match *error {
        _ if too_many => unknown("more delivered than asked for"),
        // A note went where it should not, or what counts notes is broken.
        0x06..=0x08 | 0x20 | 0x21 => unknown("the counts are not reliable"),
        code if !is_known(code) => unknown("an error the manual does not explain"),
        0 | NOTICE_NEAR_END if delivered == asked => Outcome::Complete,
        0 => unknown("less delivered than asked for, without an error"),
        _ if delivered == asked => Outcome::Complete,
        0x04 | 0x05 | 0x0A => unknown("a note is in reach of the customer"),
        code if delivered == 0 => Outcome::NothingMoved { fault: fault(code) },
        code => Outcome::Partial { fault: fault(code) },
    }
}

/// What the device's counters now, against those before, say of `order`.
pub fn recovery(order: &DispenseOrder, before: &Mark, last: &LastStatus, serial: Option<u8>) -> Recovery {
    let unchanged = *last == before.last;
    match (before.serial, serial) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {
            return if unchanged {
                Recovery::Evidence(nothing_moved(
                    order,
                    "serial number and last result are as before: the command was not taken",
                ))
            } else {
                none("the serial number is as before the order, but the last result is not")
            };
        }
        (Some(old), Some(new)) if old.wrapping_add(1) == new => {
            if unchanged {
                return none("the command was taken, but the last result is still the one before it");
            }
        }
        (Some(old), Some(new)) => {
            return none(&format!("serial number {new} is neither {old} nor the one after it"));
        }
        (Some(_), None) | (None, Some(_)) => return none("the counters before are of another variant"),
    }
    if unchanged {
        return Recovery::Evidence(nothing_moved(
            order,
            "the last result is as before: the command was not taken",
        ));
    }
    if last.about != Command::Dispense.code() {
        return none(&format!("the last result is about command 0x{:02X}", last.about));
    }
    let too_many = (1..=4u8)
        .zip(last.counts.exit)
        .any(|(position, exit)| u32::from(exit) > requested(order, position));
    if too_many {
        return none(&format!(
            "the last result, {:?} delivered, is not one of this order",
            last.counts.exit
        ));
    }
    Recovery::Evidence(report(order, &last.counts))
}

fn none(why: &str) -> Recovery {
    Recovery::NoEvidence(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::CassetteOrder;

    fn order(notes: [u32; 2]) -> DispenseOrder {
        let cassettes = (1..=2).zip(notes).filter(|(_, notes)| *notes > 0);
        DispenseOrder {
            cassettes: cassettes
                .map(|(position, notes)| CassetteOrder {
                    position,
                    denomination: Minor(1000 * u64::from(position)),
                    notes,
                })
                .collect(),
        }
    }

    fn last(about: u8, error: u8, exit: [u8; 2]) -> LastStatus {
        LastStatus {
            about,
            counts: Counts {
                error,
                exit: [exit[0], exit[1], 0, 0],
                reject: [0; 4],
            },
        }
    }

    fn is(error: u8, exit: [u8; 2]) -> Outcome {
        report(&order([3, 2]), &last(0x52, error, exit).counts).outcome
    }

    #[test]
    fn outcomes() {
        assert_eq!(is(0, [3, 2]), Outcome::Complete);
        assert_eq!(is(0x25, [3, 2]), Outcome::Complete);
        assert_eq!(is(0x04, [3, 2]), Outcome::Complete);
        assert_eq!(is(0x51, [3, 1]), Outcome::Partial { fault: fault(0x51) });
        assert_eq!(is(0x01, [0, 0]), Outcome::NothingMoved { fault: fault(1) });
        let unknown = [
            (0, [3, 1]),
            (0, [0, 0]),
            (0, [4, 1]),
            (0, [4, 2]),
            (0x04, [0, 0]),
            (0x05, [3, 1]),
            (0x06, [3, 2]),
            (0x08, [0, 0]),
            (0x20, [0, 0]),
            (0x58, [0, 0]),
        ];
        for (error, exit) in unknown {
            assert!(
                matches!(is(error, exit), Outcome::Unknown { .. }),
                "{error:02X} {exit:?}"
            );
        }
    }

    #[test]
    fn a_note_from_a_cassette_not_asked_is_unknown_and_named() {
        let report = report(&order([3, 0]), &last(0x52, 0x41, [2, 1]).counts);
        assert!(matches!(report.outcome, Outcome::Unknown { .. }));
        assert_eq!(report.cassettes[1].position, 2);
        assert_eq!(report.delivered_value(), Minor(2000));
    }

    #[test]
    fn what_is_ambiguous_is_purged_before() {
        let order = order([3, 2]);
        assert!(is_ambiguous(&order, &last(0x52, 0, [3, 2])));
        assert!(is_ambiguous(&order, &last(0x52, 1, [0, 0])));
        assert!(
            is_ambiguous(&order, &last(0x20, 0, [0, 0])),
            "a device after a power cut"
        );
        assert!(!is_ambiguous(&order, &last(0x52, 0, [4, 0])));
        assert!(!is_ambiguous(&order, &last(0x51, 0, [0, 0])));
    }

    #[test]
    fn recovery_by_last_result_and_serial_number() {
        let order = order([3, 2]);
        let purged = last(0x51, 0, [0, 0]);
        let done = last(0x52, 0, [3, 2]);
        let mark = |serial| Mark { last: purged, serial };
        let outcome = |before: &Mark, now: &LastStatus, serial| match recovery(&order, before, now, serial) {
            Recovery::Evidence(report) => Some(report.outcome),
            Recovery::NoEvidence(_) => None,
        };
        let none = |found: Option<Outcome>| matches!(found, Some(Outcome::NothingMoved { .. }));
        assert!(none(outcome(&mark(None), &purged, None)));
        assert_eq!(outcome(&mark(None), &done, None), Some(Outcome::Complete));
        assert_eq!(outcome(&mark(None), &last(0x20, 0, [0, 0]), None), None);
        assert_eq!(outcome(&mark(None), &last(0x52, 0, [4, 0]), None), None);
        assert!(none(outcome(&mark(Some(255)), &purged, Some(255))));
        assert_eq!(outcome(&mark(Some(255)), &done, Some(0)), Some(Outcome::Complete));
        assert_eq!(outcome(&mark(Some(7)), &done, Some(7)), None);
        assert_eq!(outcome(&mark(Some(7)), &purged, Some(8)), None);
        assert_eq!(outcome(&mark(Some(7)), &done, Some(9)), None);
        assert_eq!(outcome(&mark(Some(7)), &done, None), None);
    }

    #[test]
    fn a_marker_reads_back() {
        let mark = Mark {
            last: last(0x52, 1, [3, 0]),
            serial: Some(9),
        };
        assert_eq!(Mark::read(&mark.write().expect("json")), Some(mark));
        assert_eq!(Mark::read(&Marker(serde_json::json!({"other": 1}))), None);
    }
}
