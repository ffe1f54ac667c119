//! The whole state x event grid as a committed table, and the invariants under generated histories.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::hardware::{CassetteOrder, DispenseReport, Fault, Marker, Outcome};

/// Writes the table instead of comparing it when `TELLERD_BLESS` is set.
pub(crate) fn same_as_committed(file: &str, table: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/tables")
        .join(file);
    if std::env::var_os("TELLERD_BLESS").is_some() {
        std::fs::write(&path, table).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == table,
        "{file} differs: look at the change, then run with TELLERD_BLESS=1\n{table}"
    );
}

/// Rows of states, columns of events, cells of `cell`.
pub(crate) fn grid<S, E>(
    title: &str,
    states: &[(String, S)],
    events: &[(&str, E)],
    cell: impl Fn(&S, &E) -> String,
) -> String {
    let mut out = format!("{title}\n");
    for (name, state) in states {
        out.push_str(&format!("\n## {name}\n\n| event | next |\n|---|---|\n"));
        for (event_name, event) in events {
            out.push_str(&format!("| {event_name} | {} |\n", cell(state, event)));
        }
    }
    out
}

fn order() -> DispenseOrder {
    DispenseOrder {
        cassettes: vec![
            CassetteOrder {
                position: 1,
                denomination: Minor(2_000),
                notes: 2,
            },
            CassetteOrder {
                position: 2,
                denomination: Minor(1_000),
                notes: 2,
            },
        ],
    }
}

fn other_order() -> DispenseOrder {
    DispenseOrder {
        cassettes: vec![CassetteOrder {
            position: 3,
            denomination: Minor(3_000),
            notes: 2,
        }],
    }
}

fn intent(order: DispenseOrder) -> DispenseIntent {
    DispenseIntent {
        order,
        marker: Marker(serde_json::json!({"serial": 7})),
    }
}

fn report(counts: &[u32], outcome: Outcome) -> DispenseReport {
    let order = order();
    let cassettes = order.cassettes.iter().zip(counts).map(|(c, delivered)| CassetteReport {
        position: c.position,
        denomination: c.denomination,
        requested: c.notes,
        delivered: *delivered,
        rejected: 0,
        unaccounted: 0,
    });
    DispenseReport {
        cassettes: cassettes.collect(),
        outcome,
    }
}

fn fault(position: Option<u8>) -> Fault {
    Fault {
        code: 0x50,
        text: "pick-up failure".into(),
        position,
    }
}

fn quote(partial: PartialPolicy, unknown_at_deadline: UnknownPolicy) -> Quote {
    let preimage = Preimage::from_bytes([9; 32]);
    let currency = "EUR".parse().unwrap();
    Quote {
        atm: "lobby".parse().unwrap(),
        amount: Minor(6_000),
        fee: Minor(100),
        currency,
        rate: Rate {
            minor_per_btc: 10_000_000,
            currency,
        },
        price: Msat(61_000_000),
        mix: order(),
        hash: preimage.hash(),
        preimage,
        at: UnixMs(1_000),
        pay_by: UnixMs(2_000),
        policy: Policy {
            partial,
            unknown_at_deadline,
            hold_ms: 1_000,
            unknown_ms: 5_000,
            min_blocks_left: 12,
            force_blocks_left: 6,
            hold_expiry_delta: 18,
            cltv_expiry: 80,
            max_orders: 2,
        },
    }
}

pub(super) fn fresh(partial: PartialPolicy, unknown: UnknownPolicy) -> CashOut {
    CashOut::quoted(CashOutId::new(UnixMs(1_000), 1), quote(partial, unknown))
}

pub(super) fn played(start: CashOut, events: &[Event]) -> CashOut {
    events
        .iter()
        .fold(start, |state, event| apply(&state, event).unwrap().unwrap_or(state))
}

const AT: UnixMs = UnixMs(1_500);
const LATE: UnixMs = UnixMs(99_000);

pub(super) fn opened() -> Event {
    Event::InvoiceOpened {
        payment_request: "lnbcrt1".into(),
    }
}

pub(super) fn held() -> Event {
    Event::PaymentHeld {
        paid: Msat(61_000_000),
        at: AT,
    }
}

pub(super) fn committed() -> Event {
    Event::DispenseCommitted {
        intent: intent(order()),
        blocks_left: 40,
        kept_until: None,
        at: AT,
    }
}

pub(super) fn reported(counts: &[u32], outcome: Outcome) -> Event {
    Event::DispenseReported {
        report: report(counts, outcome),
        at: AT,
    }
}

pub(super) fn resolved(resolution: Resolution) -> Event {
    Event::OperatorResolved {
        by: "ada".into(),
        resolution,
        note: "counted".into(),
    }
}

fn canceled() -> Event {
    Event::InvoiceCanceled {
        reason: "by lnd".into(),
    }
}

pub(super) fn settled() -> Event {
    settled_and(Funds::NotFollowed)
}

pub(super) fn settled_and(funds: Funds) -> Event {
    Event::InvoiceSettled {
        paid: Msat(61_000_000),
        funds,
    }
}

pub(super) fn seen(funds: Funds) -> Event {
    Event::FundsSeen { funds }
}

pub(super) fn partial() -> Outcome {
    Outcome::Partial { fault: fault(Some(2)) }
}

fn unknown() -> Outcome {
    Outcome::Unknown {
        reason: "link lost".into(),
    }
}

fn events() -> Vec<(&'static str, Event)> {
    let evidence = |counts: &[u32], outcome| Event::EvidenceFound {
        report: report(counts, outcome),
        at: AT,
    };
    let commit_of = |order, blocks_left| Event::DispenseCommitted {
        intent: intent(order),
        blocks_left,
        kept_until: None,
        at: AT,
    };
    vec![
        ("invoice_opened", opened()),
        ("payment_held", held()),
        (
            "cancel_requested (customer)",
            Event::CancelRequested { by: CancelBy::Customer },
        ),
        ("deadline_passed (early)", Event::DeadlinePassed { at: UnixMs(1_001) }),
        ("deadline_passed", Event::DeadlinePassed { at: LATE }),
        ("window_closing (11 blocks)", Event::WindowClosing { blocks_left: 11 }),
        ("window_closing (5 blocks)", Event::WindowClosing { blocks_left: 5 }),
        ("window_closing (0 blocks)", Event::WindowClosing { blocks_left: 0 }),
        (
            "check_refused",
            Event::CheckRefused {
                reason: "path not clear".into(),
            },
        ),
        ("dispense_committed", committed()),
        ("dispense_committed (other cassette)", commit_of(other_order(), 40)),
        ("dispense_committed (11 blocks)", commit_of(order(), 11)),
        (
            "dispense_committed (wrong value)",
            commit_of(DispenseOrder { cassettes: vec![] }, 40),
        ),
        ("dispense_reported (complete)", reported(&[2, 2], Outcome::Complete)),
        ("dispense_reported (partial)", reported(&[2, 1], partial())),
        (
            "dispense_reported (nothing)",
            reported(&[0, 0], Outcome::NothingMoved { fault: fault(Some(1)) }),
        ),
        ("dispense_reported (nothing, no cassette named)", {
            reported(&[0, 0], Outcome::NothingMoved { fault: fault(None) })
        }),
        ("dispense_reported (unknown)", reported(&[0, 0], unknown())),
        (
            "dispense_reported (complete, counts short)",
            reported(&[2, 1], Outcome::Complete),
        ),
        ("dispense_reported (too many)", reported(&[3, 2], Outcome::Complete)),
        ("interrupted", Event::Interrupted { at: AT }),
        ("evidence_found (complete)", evidence(&[2, 2], Outcome::Complete)),
        ("evidence_found (partial)", evidence(&[1, 0], partial())),
        (
            "evidence_found (nothing)",
            evidence(&[0, 0], Outcome::NothingMoved { fault: fault(Some(1)) }),
        ),
        ("evidence_found (unknown, all counted)", evidence(&[2, 2], unknown())),
        (
            "evidence_missing",
            Event::EvidenceMissing {
                reason: "no last status".into(),
            },
        ),
        (
            "operator_resolved (all delivered)",
            resolved(Resolution::Delivered(Minor(6_000))),
        ),
        (
            "operator_resolved (part delivered)",
            resolved(Resolution::Delivered(Minor(2_000))),
        ),
        (
            "operator_resolved (none delivered)",
            resolved(Resolution::Delivered(Minor(0))),
        ),
        (
            "operator_resolved (more than ordered)",
            resolved(Resolution::Delivered(Minor(6_001))),
        ),
        ("operator_resolved (claim paid)", resolved(Resolution::ClaimPaid)),
        ("operator_resolved (close)", resolved(Resolution::Close)),
        ("invoice_settled", settled()),
        ("invoice_settled (money pending)", settled_and(Funds::Pending)),
        ("invoice_settled (money lost)", settled_and(Funds::Lost)),
        ("funds_seen (pending)", seen(Funds::Pending)),
        ("funds_seen (final)", seen(Funds::Final)),
        ("funds_seen (lost)", seen(Funds::Lost)),
        ("funds_seen (not followed any more)", seen(Funds::NotFollowed)),
        ("invoice_canceled", canceled()),
    ]
}

fn states() -> Vec<(String, CashOut)> {
    let owe = || fresh(PartialPolicy::Owe, UnknownPolicy::Cancel);
    let absorb = || fresh(PartialPolicy::Absorb { limit: Minor(5_000) }, UnknownPolicy::Settle);
    let to = |events: &[Event]| played(owe(), events);
    let nothing = reported(&[0, 0], Outcome::NothingMoved { fault: fault(Some(1)) });
    let unknown_now = reported(&[0, 0], unknown());
    let states = vec![
        ("quoted", owe()),
        ("awaiting_payment", to(&[opened()])),
        ("held", to(&[opened(), held()])),
        ("dispensing", to(&[opened(), held(), committed()])),
        (
            "dispensing, absorb up to 50.00",
            played(absorb(), &[opened(), held(), committed()]),
        ),
        (
            "dispensing, hold lost",
            to(&[opened(), held(), committed(), canceled()]),
        ),
        (
            "held again after a proven zero",
            to(&[opened(), held(), committed(), nothing]),
        ),
        (
            "outcome_unknown",
            to(&[opened(), held(), committed(), unknown_now.clone()]),
        ),
        (
            "outcome_unknown, policy settle",
            played(absorb(), &[opened(), held(), committed(), unknown_now.clone()]),
        ),
        (
            "outcome_unknown, hold lost",
            to(&[opened(), held(), committed(), unknown_now.clone(), canceled()]),
        ),
        (
            "outcome_unknown, all counted out",
            to(&[opened(), held(), committed(), reported(&[2, 2], unknown())]),
        ),
        ("outcome_unknown, no evidence", {
            to(&[
                opened(),
                held(),
                committed(),
                unknown_now,
                Event::EvidenceMissing { reason: "none".into() },
            ])
        }),
        (
            "settling",
            to(&[opened(), held(), committed(), reported(&[2, 2], Outcome::Complete)]),
        ),
        (
            "settling, claim 10.00",
            to(&[opened(), held(), committed(), reported(&[2, 1], partial())]),
        ),
        ("canceling", to(&[Event::CancelRequested { by: CancelBy::Customer }])),
        (
            "completed",
            to(&[
                opened(),
                held(),
                committed(),
                reported(&[2, 2], Outcome::Complete),
                settled(),
            ]),
        ),
        ("canceled", to(&[canceled(), canceled()])),
        (
            "claim_owed",
            to(&[opened(), held(), committed(), reported(&[2, 1], partial()), settled()]),
        ),
        ("needs_operator, cash out and canceled", {
            to(&[
                opened(),
                held(),
                committed(),
                reported(&[2, 2], Outcome::Complete),
                canceled(),
            ])
        }),
        ("needs_operator, settled without cash", {
            to(&[opened(), Event::CancelRequested { by: CancelBy::Customer }, settled()])
        }),
    ];
    states
        .into_iter()
        .chain(settled::tests::states())
        .map(|(name, state)| (name.to_owned(), state))
        .collect()
}

pub(super) fn and(first: &[Event], then: &[Event]) -> Vec<Event> {
    first.iter().chain(then).cloned().collect()
}

fn describe(before: &CashOut, event: &Event) -> String {
    match apply(before, event) {
        Err(illegal) => format!("refused: {}", illegal.why),
        Ok(None) => "-".into(),
        Ok(Some(after)) => {
            let books = &after.books;
            let mut text = format!("**{}**", after.phase.name());
            if after.hold_lost && !before.hold_lost {
                text.push_str(", hold lost");
            }
            if books.funds != before.books.funds {
                text.push_str(&format!(", money {}", books.funds.as_str()));
            }
            for (name, value) in [
                ("delivered", books.delivered),
                ("claim", books.claim),
                ("loss", books.loss),
            ] {
                if value > Minor::ZERO {
                    text.push_str(&format!(", {name} {value}"));
                }
            }
            text
        }
    }
}

#[test]
fn the_grid_is_the_committed_one() {
    let title = "# Cash-out: every state, every event\n\nWritten by a test. `-`: nothing changes. \
                 A cash-out of 60.00; orders of 2 x 20 and 2 x 10.";
    same_as_committed("cashout.md", &grid(title, &states(), &events(), describe));
}

#[test]
fn every_state_is_in_the_grid() {
    let names: std::collections::BTreeSet<&str> = states().iter().map(|(_, s)| s.phase.name()).collect();
    assert_eq!(names.len(), 11, "{names:?}");
}

#[test]
fn effects_of_final_states_are_none_and_of_the_others_some() {
    for (name, state) in states() {
        assert_eq!(effects(&state).is_empty(), state.is_final(), "{name}");
    }
}

#[test]
fn dispense_is_never_an_effect_after_an_interruption() {
    for (name, state) in states() {
        let after = apply(&state, &Event::Interrupted { at: AT }).unwrap().unwrap_or(state);
        assert!(!effects(&after).contains(&Effect::Dispense), "{name}");
    }
}

/// A cash-out from its quote to its end, for tests of what carries it.
pub(crate) fn whole_history() -> Vec<Event> {
    let quote = Box::new(quote(PartialPolicy::Owe, UnknownPolicy::Cancel));
    let complete = reported(&[2, 2], Outcome::Complete);
    vec![
        Event::Quoted { quote },
        opened(),
        held(),
        committed(),
        complete,
        settled(),
    ]
}

/// Physical truth and the log of orders beside the machine, to check it against.
#[derive(Default)]
struct World {
    orders: u32,
    dispensing_without_hold: bool,
}

fn check(before: &CashOut, after: &CashOut, event: &Event, world: &mut World) -> Result<(), TestCaseError> {
    if matches!(after.phase, Phase::Dispensing { .. }) && !matches!(before.phase, Phase::Dispensing { .. }) {
        prop_assert!(matches!(before.phase, Phase::Held { .. }), "no dispense without a hold");
        world.orders += 1;
        world.dispensing_without_hold |= before.books.paid == Msat::ZERO;
    }
    prop_assert!(!world.dispensing_without_hold);
    prop_assert!(world.orders <= after.quote.policy.max_orders, "bounded orders");
    prop_assert_eq!(world.orders, after.orders);
    if before.is_final() {
        prop_assert_eq!(before, after, "final is final");
    }
    let became = |name: &str| after.phase.name() == name && before.phase.name() != name;
    if became("canceling") && after.books.delivered > Minor::ZERO {
        prop_assert_eq!(
            after.books.loss,
            after.books.delivered,
            "a cancel after cash is a booked loss"
        );
    }
    if became("settling") {
        prop_assert!(after.books.delivered > Minor::ZERO, "no settle at proven zero");
        prop_assert_eq!(
            after.books.delivered.0 + after.books.claim.0,
            after.quote.amount.0 + after.books.loss.0
        );
    }
    settled::tests::funds_rules(before, after)?;
    if matches!(before.phase, Phase::Dispensing { .. }) && matches!(event, Event::Interrupted { .. }) {
        prop_assert_eq!(after.phase.name(), "outcome_unknown");
    }
    if !matches!(after.phase, Phase::NeedsOperator { .. }) {
        prop_assert_eq!(after.drift(), 0, "books balance: {:?}", after);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Any events in any order, with duplicates: the invariants of the design hold after each,
    /// and the state read back from its JSON is the same.
    #[test]
    fn invariants_hold_under_any_history(
        picks in proptest::collection::vec((0..40_usize, any::<bool>()), 1..60),
        absorb in any::<bool>(),
        settle in any::<bool>(),
    ) {
        let events = events();
        prop_assert_eq!(events.len(), 40);
        let partial = if absorb { PartialPolicy::Absorb { limit: Minor(2_500) } } else { PartialPolicy::Owe };
        let mut state = fresh(partial, if settle { UnknownPolicy::Settle } else { UnknownPolicy::Cancel });
        let mut world = World::default();
        for (pick, twice) in picks {
            let event = &events[pick].1;
            for _ in 0..=usize::from(twice) {
                let Ok(Some(after)) = apply(&state, event) else { continue };
                check(&state, &after, event, &mut world)?;
                let json = serde_json::to_string(&after).unwrap();
                prop_assert_eq!(&serde_json::from_str::<CashOut>(&json).unwrap(), &after);
                state = after;
            }
        }
    }

    /// A history on the happy path with noise: whatever comes between, every run can still end.
    #[test]
    fn every_state_can_reach_an_end(picks in proptest::collection::vec(0..40_usize, 0..40), lost: bool) {
        let events = events();
        let mut state = fresh(PartialPolicy::Owe, UnknownPolicy::Cancel);
        for pick in picks {
            if let Ok(Some(after)) = apply(&state, &events[pick].1) {
                state = after;
            }
        }
        let closing = [
            Event::Interrupted { at: AT },
            Event::DeadlinePassed { at: UnixMs(u64::MAX) },
            if matches!(state.phase, Phase::Settling) { settled() } else { canceled() },
            canceled(),
            resolved(Resolution::ClaimPaid),
            seen(if lost { Funds::Lost } else { Funds::Final }),
            resolved(Resolution::Close),
            canceled(),
        ];
        for event in closing {
            if let Ok(Some(after)) = apply(&state, &event) {
                state = after;
            }
        }
        prop_assert!(state.is_final(), "{:?}", state.phase);
    }
}

#[test]
fn an_operator_can_not_take_back_cash_that_the_device_counted_out() {
    let unknown_part = reported(&[1, 0], unknown());
    let item = played(
        fresh(PartialPolicy::Owe, UnknownPolicy::Cancel),
        &[opened(), held(), committed(), unknown_part],
    );
    let Phase::OutcomeUnknown { at_least, .. } = item.phase else {
        panic!("{item:?}")
    };
    assert!(at_least > Minor::ZERO);
    assert!(apply(&item, &resolved(Resolution::Delivered(Minor::ZERO))).is_err());
    assert!(apply(&item, &resolved(Resolution::Delivered(at_least))).is_ok());
}

#[test]
fn an_unknown_outcome_is_decided_while_the_hold_is_kept() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut start = fresh(PartialPolicy::Owe, UnknownPolicy::Settle);
    start.quote.policy.unknown_ms = 3_600_000;
    let keep = |until| match committed() {
        Event::DispenseCommitted {
            intent,
            blocks_left,
            at,
            ..
        } => Event::DispenseCommitted {
            intent,
            blocks_left,
            kept_until: until,
            at,
        },
        other => other,
    };
    // The site was away for so long after its commit; it decides so long after that.
    for (kept, away, decides) in [
        (Some(minutes(65)), minutes(1), minutes(61)),
        (Some(minutes(65)), minutes(30), minutes(63)),
        (Some(minutes(65)), minutes(63), minutes(64)),
        (Some(minutes(65)), minutes(65), minutes(125)),
        (None, minutes(30), minutes(90)),
    ] {
        let committed = keep(kept.map(|kept| AT.plus(kept)));
        let interrupted = Event::Interrupted { at: AT.plus(away) };
        let state = played(start.clone(), &[opened(), held(), committed, interrupted]);
        assert_eq!(deadline(&state), Some(AT.plus(decides)), "{kept:?} {away:?}");
    }
}
