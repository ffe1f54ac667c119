//! Each rule, broken once; and a history that breaks none.

use super::*;
use crate::cashout::{CancelBy, Resolution};
use crate::hardware::{CassetteOrder, DispenseIntent, DispenseOrder, Fault, Marker};
use crate::money::Msat;
use crate::sim::lnd::node::Finality;

#[path = "rules_desk.rs"]
mod desk;

use desk::{Desk, NOTES, order};

fn breaks(rule: &str, done: Result<(), Broken>) {
    assert_eq!(done.map_err(|broken| broken.rule), Err(rule));
}

fn no_note() -> Outcome {
    let fault = Fault {
        code: 0x50,
        text: String::new(),
        position: Some(1),
    };
    Outcome::NothingMoved { fault }
}

#[test]
fn a_good_history_breaks_none() {
    let mut desk = Desk::out();
    let hash = desk.quote.hash;
    desk.books.settles(&hash).unwrap();
    desk.side
        .node
        .settle(desk.quote.preimage.expose().as_slice(), desk.now)
        .unwrap();
    let at = Some(desk.now);
    let event = InvoiceEvent::SettledAtLnd {
        paid: desk.quote.price,
        at,
        follow: true,
    };
    let body = Body::Invoice { hash, event };
    desk.books.told(&desk.record(body), &desk.side).unwrap();
    desk.reborn().unwrap();
    desk.books.in_time(desk.now, desk.now, desk.now).unwrap();
}

#[test]
fn write_before_act() {
    let hash = Desk::new().quote.hash;
    breaks("act_before_write", Desk::new().books.adds(&hash));
    let mut desk = Desk::new();
    let quote = desk.quote.clone();
    desk.wrote(Event::Quoted { quote }).unwrap();
    breaks("act_before_write", desk.books.adds(&hash));
    breaks("dispense_before_intent", Desk::held().started());
    breaks("settle_before_report", Desk::ordered().books.settles(&hash));
}

#[test]
fn no_dispense_without_a_hold_that_was_just_read() {
    let mut late = Desk::ordered();
    late.pass(CHECK_AGE_MS + 1);
    breaks("hold_not_read_anew", late.started());

    let mut canceled = Desk::ordered();
    let hash = canceled.quote.hash;
    canceled.side.node.cancel(&hash.0, canceled.now).unwrap();
    breaks("dispense_without_hold", canceled.started());

    let mut given_up = Desk::ordered();
    given_up.mine(90);
    given_up.started().unwrap();
    assert_eq!(given_up.books.excused.len(), 1, "LND gave it up by itself, just now");

    let mut near = Desk::held();
    near.mine(60);
    near.pass(CHECK_AGE_MS + 1);
    near.books.read.insert(hash, near.now);
    near.committed().unwrap();
    breaks("window_too_short", near.started());

    let mut lost = Desk::ordered();
    lost.side.unsynced = Some(UnixMs(lost.now.0 - CHECK_AGE_MS - 1));
    breaks("dispense_out_of_sync", lost.started());
}

#[test]
fn at_most_once() {
    let mut twice = Desk::ordered();
    twice.started().unwrap();
    breaks("commanded_twice", twice.started());

    let mut again = Desk::ordered();
    again.started().unwrap();
    again.reported(0, no_note()).unwrap();
    let other = CassetteOrder {
        position: 2,
        denomination: DENOMINATIONS[1],
        notes: 2,
    };
    let cassettes = vec![other];
    again.committed_as(DispenseOrder { cassettes }).unwrap();
    // Of the first order, late.
    again.notes(1).unwrap();
    breaks("dispensed_again", again.started());

    let mut more = Desk::ordered();
    more.started().unwrap();
    breaks("overdispensed", more.notes(NOTES + 1));
}

#[test]
fn no_cancel_after_cash_and_no_settle_at_zero() {
    let mut early = Desk::held();
    let hash = early.quote.hash;
    breaks("cancel_before_decision", early.books.cancels(&hash));

    early.wrote(Event::CancelRequested { by: CancelBy::Customer }).unwrap();
    early.books.cancels(&hash).unwrap();
    early.books.notes.entry(hash).or_default().out = Minor(2_000);
    breaks("cancel_after_cash", early.books.cancels(&hash));

    let mut zero = Desk::interrupted(0);
    zero.wrote(Event::OperatorResolved {
        by: "ada".to_owned(),
        resolution: Resolution::Delivered(Minor(10_000)),
        note: String::new(),
    })
    .unwrap();
    breaks("settle_at_zero", zero.books.settles(&hash));
}

#[test]
fn unknown_is_a_state() {
    let at = |desk: &Desk| Event::DeadlinePassed {
        at: UnixMs(desk.now.0 + 3_600_000),
    };
    // It says that its time has come; it has not.
    let mut early = Desk::interrupted(1);
    early.pass(4_000);
    let event = at(&early);
    breaks("decided_early", early.wrote(event));

    let mut in_time = Desk::interrupted(1);
    in_time.pass(5_000);
    let event = at(&in_time);
    in_time.wrote(event).unwrap();
    assert!(in_time.books.decisions.by_policy.contains(&in_time.id));
    in_time.books.cancels(&in_time.quote.hash.clone()).unwrap();

    for (blocks, forced) in [(40, false), (60, true)] {
        let mut closing = Desk::interrupted(1);
        closing.mine(blocks);
        let done = closing.wrote(Event::WindowClosing { blocks_left: 5 });
        assert_eq!(done.is_ok(), forced, "{blocks} blocks: {done:?}");
    }

    // An actor died, long after its daemon began.
    let mut alone = Desk::held();
    alone.reborn().unwrap();
    alone.pass(3_600_000);
    alone.committed().unwrap();
    let (at_once, later) = (alone.now, UnixMs(alone.now.0 + 5_000));
    alone.wrote(Event::Interrupted { at: at_once }).unwrap();
    breaks("evidence_not_read", {
        let id = alone.id;
        let asked = alone.books.durable.cashouts[&id].clone();
        let event = Event::EvidenceMissing { reason: String::new() };
        alone.books.decisions.made(None, &asked, &event, at_once, &alone.side)
    });
    breaks("decided_early", alone.wrote(Event::DeadlinePassed { at: later }));

    // Straight to a decision, whatever the words.
    let desk = Desk::interrupted(1);
    let after = CashOut {
        phase: Phase::Canceling {
            reason: "outcome unknown at the deadline".to_owned(),
        },
        ..desk.books.durable.cashouts[&desk.id].clone()
    };
    let before = CashOut {
        phase: Phase::Dispensing {
            intent: DispenseIntent {
                order: order(&desk.quote),
                marker: Marker(serde_json::json!({})),
            },
        },
        ..after.clone()
    };
    let event = Event::Interrupted { at: desk.now };
    let later = UnixMs(desk.now.0 + 3_600_000);
    let made = Decisions::default().made(Some(&before), &after, &event, later, &desk.side);
    breaks("decided_early", made);
}

#[test]
fn the_device_is_read_before_it_forgets_and_before_it_is_given_up() {
    let mut desk = Desk::interrupted(1);
    let missing = || Event::EvidenceMissing { reason: String::new() };
    breaks(
        "evidence_overwritten",
        desk.machine(&What::CommandReceived { command: 0x51 }),
    );
    desk.pass(1);
    breaks("evidence_not_read", Desk::interrupted(1).wrote(missing()));
    desk.machine(&What::CommandReceived { command: 0x55 }).unwrap();
    desk.wrote(missing()).unwrap();
    desk.machine(&What::CommandReceived { command: 0x51 }).unwrap();
}

#[test]
fn what_is_written_down_is_so() {
    let mut desk = Desk::ordered();
    desk.started().unwrap();
    desk.notes(2).unwrap();
    breaks("untrue_report", desk.reported(NOTES, Outcome::Complete));
    let reason = String::new();
    breaks("untrue_report", {
        let mut desk = Desk::ordered();
        desk.started().unwrap();
        desk.reported(1, Outcome::Unknown { reason })
    });
    breaks("illegal_record", Desk::opened().committed());

    let mut held = Desk::held();
    let hash = held.quote.hash;
    let untrue = |event| held.books.told(&held.record(Body::Invoice { hash, event }), &held.side);
    breaks("untrue_end", untrue(InvoiceEvent::CanceledAtLnd));
    breaks(
        "untrue_end",
        untrue(InvoiceEvent::SettledAtLnd {
            paid: Msat(1),
            at: None,
            follow: true,
        }),
    );
    held.side.node.set_finality(Finality::Hold, held.now);
    held.side
        .node
        .settle(held.quote.preimage.expose().as_slice(), held.now)
        .unwrap();
    let event = InvoiceEvent::FundsSeen {
        funds: Funds::Final,
        at: held.now,
    };
    let body = Body::Invoice { hash, event };
    breaks("untrue_end", held.books.told(&held.record(body), &held.side));
}

#[test]
fn notes_are_conserved() {
    // The books have fewer than come out.
    let mut desk = Desk::ordered();
    desk.loaded(1, 0).unwrap();
    desk.started().unwrap();
    desk.notes(NOTES).unwrap();
    breaks("conservation", desk.reported(NOTES, Outcome::Complete));
}

#[test]
fn nothing_is_late() {
    let mut desk = Desk::opened();
    desk.pass(600_000 + 60_001);
    let now = desk.now;
    breaks("deadline_missed", desk.books.in_time(UnixMs(0), UnixMs(0), now));
    desk.books.in_time(now, UnixMs(0), now).unwrap();

    let mut desk = Desk::out();
    desk.pass(180_001);
    breaks("end_late", desk.books.in_time(UnixMs(0), UnixMs(0), desk.now));
    desk.books.in_time(UnixMs(0), desk.now, desk.now).unwrap();
}

#[test]
fn a_new_life_reads_what_was_durable() {
    let mut desk = Desk::held();
    let (state, records) = (desk.books.durable.clone(), desk.books.records);
    let (now, side) = (desk.now, &desk.side);
    breaks("lost", desk.books.read_again(&state, records - 1, now, side));
    breaks("invented", desk.books.read_again(&state, records + 1, now, side));
    breaks(
        "other_state",
        desk.books.read_again(&Folded::default(), records, now, side),
    );
}
