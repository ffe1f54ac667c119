//! Cash-outs of a whole fleet, and what customers and operators do to them.
#![allow(clippy::expect_used, clippy::panic)]

use tellerd::actors::fleet::{AtmOrder, FleetError};
use tellerd::cashout::ledger::Cassette;
use tellerd::cashout::quote::QuoteError;
use tellerd::cashout::{CancelBy, Phase, Resolution};
use tellerd::hardware::puloon::emulator::{Event, Fault, Setup, What};
use tellerd::metrics::AtmState;
use tellerd::money::Minor;
use tellerd::sim::lnd::PayOptions;

use crate::fleet_rig::{Plan, id, machine, run};

fn reason(phase: &Phase) -> &str {
    match phase {
        Phase::Canceled { reason } => reason,
        other => panic!("not canceled: {other:?}"),
    }
}

#[test]
fn notes_for_money() {
    run(Plan::default(), async |rig| {
        rig.serve("left").await;
        rig.serve("left").await;
        assert_eq!(rig.physical("left"), (12_000, 2));
        assert_eq!(rig.metric("tellerd_cashouts_total{outcome=\"completed\"}").await, 2.0);
    });
}

#[test]
fn a_jam_before_the_first_note_gives_the_money_back() {
    run(Plan::default(), async |rig| {
        let jam = Fault::JamOnPath {
            after_notes: 0,
            hard: false,
        };
        rig.dispensers["left"].inject(jam.next());
        let cashout = rig.start("left", 6000).await;
        let payment = rig.pay(&cashout);
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
        // It is cleared by a reset, and the next customer is served.
        rig.serve("left").await;
    });
}

#[test]
fn part_of_the_notes_leaves_a_claim_that_an_operator_pays() {
    run(Plan::default(), async |rig| {
        let jam = Fault::Error {
            code: 1,
            after_notes: 1,
        };
        rig.dispensers["left"].inject(jam.next());
        let cashout = rig.start("left", 6000).await;
        let payment = rig.pay(&cashout);
        let owed = rig.reaches(cashout.id, "claim_owed").await;
        assert_eq!((owed.books.delivered, owed.books.claim), (Minor(2000), Minor(4000)));
        assert!(rig.ended(payment).await.preimage.is_some());
        let by = "anna".to_owned();
        let paid = rig.fleet.resolve(cashout.id, by, Resolution::ClaimPaid, String::new());
        assert_eq!(paid.await.expect("resolved").phase.name(), "completed");
    });
}

#[test]
fn a_customer_cancels_before_paying_and_can_not_pay_any_more() {
    run(Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        rig.fleet
            .cancel(cashout.id, CancelBy::Customer)
            .await
            .expect("canceled");
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(rig.pay(&cashout)).await.preimage.is_none());
        assert_eq!(rig.physical("left"), (0, 0));
        let again = rig.fleet.cancel(cashout.id, CancelBy::Customer).await;
        assert!(matches!(again, Err(FleetError::Refused(_))), "{again:?}");
        rig.serve("left").await;
    });
}

#[test]
fn an_unpaid_invoice_ends_in_time_and_a_late_payment_comes_back() {
    run(Plan::policy("payment_timeout = '1s'"), async |rig| {
        let cashout = rig.start("left", 6000).await;
        let ended = rig.reaches(cashout.id, "canceled").await;
        assert_eq!(reason(&ended.phase), "not paid in time");
        assert!(rig.ended(rig.pay(&cashout)).await.preimage.is_none());
        rig.ready("left").await;
    });
}

#[test]
fn who_pays_too_much_gets_the_notes_and_the_books_tell() {
    run(Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        let twice = PayOptions {
            amount_msat: Some(cashout.quote.price.0 * 2),
            parts: 2,
            ..PayOptions::default()
        };
        let payment = rig.pay_as(&cashout, &twice);
        let ended = rig.reaches(cashout.id, "completed").await;
        assert_eq!(ended.books.paid.0, cashout.quote.price.0 * 2);
        assert!(rig.ended(payment).await.preimage.is_some());
    });
}

#[test]
fn a_hold_that_finds_no_dispenser_is_given_back_at_its_deadline() {
    let plan = Plan {
        policy: "hold_deadline = '1s'",
        machines: vec![("left", machine())],
        ..Plan::default()
    };
    run(plan, async |rig| {
        let cashout = rig.start("left", 6000).await;
        // It answers no status for longer than the deadline.
        for _ in 0..40 {
            let silent = Fault::NoAck { carried_out: false };
            rig.dispensers["left"].inject(silent.on(tellerd::hardware::puloon::emulator::Target::Status));
        }
        let payment = rig.pay(&cashout);
        let ended = rig.reaches(cashout.id, "canceled").await;
        assert_eq!(reason(&ended.phase), "held too long without a dispense");
        assert!(rig.ended(payment).await.preimage.is_none());
        assert_eq!(rig.physical("left"), (0, 0));
    });
}

#[test]
fn a_payment_with_too_few_blocks_left_is_given_back() {
    run(Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        let look_up = Some("LookupInvoice".to_owned());
        let hang = tellerd::sim::lnd::Fault::Hang {
            time: None,
            method: look_up,
        };
        rig.lnd.inject(hang).expect("hang");
        let payment = rig.pay(&cashout);
        rig.lnd.advance_blocks(52).expect("blocks");
        rig.lnd.inject(tellerd::sim::lnd::Fault::Release).expect("release");
        let ended = rig.reaches(cashout.id, "canceled").await;
        assert!(reason(&ended.phase).contains("too few"), "{ended:?}");
        assert!(rig.ended(payment).await.preimage.is_none());
        assert_eq!(rig.physical("left"), (0, 0));
    });
}

#[test]
fn one_customer_at_a_time_and_only_what_the_machine_can_give() {
    run(Plan::default(), async |rig| {
        let left = id("left");
        rig.ready("left").await;
        let too_little = rig.fleet.start(&left, Minor(1000)).await;
        let bounds = matches!(too_little, Err(FleetError::Quote(QuoteError::OutOfLimits { .. })));
        assert!(bounds, "{too_little:?}");
        let no_mix = rig.fleet.start(&left, Minor(3000)).await;
        assert!(
            matches!(no_mix, Err(FleetError::Quote(QuoteError::NoMix(_)))),
            "{no_mix:?}"
        );
        let unknown = rig.fleet.start(&id("nowhere"), Minor(6000)).await;
        assert!(matches!(unknown, Err(FleetError::NoSuchAtm(_))), "{unknown:?}");

        let cashout = rig.start("left", 6000).await;
        let second = rig.fleet.start(&left, Minor(2000)).await;
        assert!(matches!(second, Err(FleetError::Busy(_))), "{second:?}");
        let scrape = rig.fleet.metrics().await;
        assert!(
            scrape.lines().any(|l| l.contains("reserved") && l.ends_with(" 3")),
            "{scrape}"
        );
        rig.fleet
            .cancel(cashout.id, CancelBy::Customer)
            .await
            .expect("canceled");
        rig.reaches(cashout.id, "canceled").await;
    });
}

#[test]
fn two_who_ask_at_once_get_one_promise() {
    run(Plan::default(), async |rig| {
        rig.ready("left").await;
        let left = id("left");
        let ask = || rig.fleet.start(&left, Minor(6000));
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        let (won, lost): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 2), "{lost:?}");
        assert!(lost.iter().all(|l| matches!(l, Err(FleetError::Busy(_)))), "{lost:?}");
        let won = won.into_iter().flatten().next().expect("one");
        rig.pay(&won);
        rig.reaches(won.id, "completed").await;
    });
}

#[test]
fn a_drained_machine_takes_nobody_until_it_is_resumed() {
    run(Plan::default(), async |rig| {
        let left = id("left");
        let open = rig.start("left", 6000).await;
        let by = || "anna".to_owned();
        rig.fleet.order(&left, by(), AtmOrder::Drain).await.expect("drained");
        rig.pay(&open);
        rig.reaches(open.id, "completed").await;
        rig.stands("left", AtmState::Draining, "operator").await;
        let refused = rig.fleet.start(&left, Minor(6000)).await;
        assert!(matches!(refused, Err(FleetError::NotInService { .. })), "{refused:?}");
        rig.fleet.order(&left, by(), AtmOrder::Resume).await.expect("resumed");
        rig.serve("left").await;
    });
}

#[test]
fn a_count_that_can_not_be_is_refused_and_the_books_stay() {
    run(Plan::default(), async |rig| {
        rig.ready("left").await;
        let left = id("left");
        let before = rig.fleet.atm(&left).await.expect("known").book;
        let first = before.notes.cassettes[0];
        let (position, note) = (first.position, first.denomination);
        for (wrong, why) in [
            (
                Cassette::loaded(position, Minor(note.0 * 10), 5),
                "is configured with notes of",
            ),
            (Cassette::loaded(position, note, 10_001), "at most 10000"),
            (Cassette::loaded(9, note, 5), "not configured"),
        ] {
            let order = AtmOrder::Load(vec![wrong]);
            let refused = rig.fleet.order(&left, "anna".into(), order).await.expect_err(why);
            assert!(refused.to_string().contains(why), "{refused}");
        }
        assert_eq!(rig.fleet.atm(&left).await.expect("known").book, before);
    });
}

/// The customer has the money back; the note at the exit must not be pushed out to nobody.
#[test]
fn a_path_is_not_cleared_by_itself_while_notes_are_unaccounted_for() {
    run(Plan::policy("unknown_deadline = '1s'"), async |rig| {
        rig.dispensers["left"].inject(Fault::JamAtExit { after_notes: 0 }.next());
        let cashout = rig.start("left", 6000).await;
        let payment = rig.pay(&cashout);
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
        rig.stands("left", AtmState::OutOfService, "look inside, then resume it")
            .await;
        let events = rig.dispensers["left"].events();
        let begun = |e: &Event| matches!(e.what, What::DispenseStarted { .. });
        let since = events.iter().skip_while(|e| !begun(e));
        let purged = |e: &&Event| matches!(e.what, What::CommandReceived { command: 0x51 });
        assert_eq!(since.filter(purged).count(), 0, "{events:?}");
        assert_eq!(rig.physical("left").0, 0);
    });
}

#[test]
fn a_line_cut_within_the_report_is_answered_from_the_device() {
    run(Plan::default(), async |rig| {
        rig.dispensers["left"].inject(Fault::CutReply { after_bytes: 3 }.next());
        let cashout = rig.start("left", 6000).await;
        rig.pay(&cashout);
        rig.reaches(cashout.id, "completed").await;
        rig.serve("left").await;
    });
}

#[test]
fn a_lost_result_waits_for_an_operator_and_keeps_the_machine() {
    let plan = Plan {
        machines: vec![(
            "left",
            Setup {
                note_ms: 5,
                ..machine()
            },
        )],
        ..Plan::default()
    };
    run(plan, async |rig| {
        let (cashout, payment) = rig.unknown_outcome("left").await;
        rig.stands("left", AtmState::OutOfService, "it is not known").await;
        let told = Resolution::Delivered(Minor(4000));
        let by = || "anna".to_owned();
        let told = rig.fleet.resolve(cashout.id, by(), told, "counted".into()).await;
        told.expect("resolved");
        rig.reaches(cashout.id, "claim_owed").await;
        assert!(rig.ended(payment).await.preimage.is_some());
        let paid = rig
            .fleet
            .resolve(cashout.id, by(), Resolution::ClaimPaid, String::new());
        paid.await.expect("paid");
    });
}
