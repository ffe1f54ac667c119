//! The audit against crafted ledgers: one clean cash-out, and one lie for each rule.

use super::*;
use crate::hardware::puloon::emulator::What;
use crate::ids::PaymentHash;
use crate::money::{Funds, Msat};
use crate::sim::lnd::node::record::{
    Cause, FailReason, HistoryEntry, InvoiceRecord, InvoiceState, Money, Outcome, PayOrder, PayerHtlc, Payment,
};

const TWENTY: Minor = Minor(2_000);
const SIXTY: Minor = Minor(6_000);

fn atm() -> AtmId {
    "atm-001".parse().expect("id")
}

fn id() -> CashOutId {
    CashOutId::new(UnixMs(1_000), 7)
}

fn hash() -> PaymentHash {
    PaymentHash([9; 32])
}

fn history(states: &[(u64, InvoiceState, Cause)]) -> Vec<HistoryEntry> {
    let entries = (1..).zip(states).map(|(seq, (at, state, cause))| HistoryEntry {
        seq,
        at_unix_ms: UnixMs(*at),
        state: *state,
        cause: *cause,
    });
    entries.collect()
}

fn invoice(history: Vec<HistoryEntry>) -> InvoiceRecord {
    InvoiceRecord {
        hash: hash(),
        add_index: 1,
        settle_index: 0,
        memo: format!("ATM {} cash-out {}", atm(), id()),
        description_hash: String::new(),
        value_msat: SIXTY.0 * 10_000,
        expiry_s: 60,
        cltv_expiry: 80,
        paid_msat: 0,
        payment_request: "lnbcrt".into(),
        payment_addr: String::new(),
        created_at_unix_ms: UnixMs(1_000),
        preimage: None,
        state: history.last().expect("a state").state,
        htlcs: Vec::new(),
        history,
    }
}

fn payment(outcome: Outcome) -> Payment {
    Payment {
        id: 1,
        order: PayOrder {
            hash: hash(),
            payment_addr: String::new(),
            amount_msat: SIXTY.0 * 10_000,
            parts: 1,
            missing_parts: 0,
            final_cltv_delta: 80,
            due_at_unix_ms: UnixMs(1_500),
        },
        htlcs: vec![PayerHtlc {
            amount_msat: SIXTY.0 * 10_000,
            sent_at_unix_ms: UnixMs(1_500),
            htlc_index: Some(1),
            outcome,
        }],
        preimage: None,
    }
}

fn view(state: &str) -> CashOutView {
    CashOutView {
        id: id(),
        atm: atm(),
        state: state.into(),
        reason: None,
        ended: matches!(state, "completed" | "canceled"),
        operator_action: None,
        amount_minor: SIXTY,
        fee_minor: Minor::ZERO,
        currency: "EUR".parse().expect("code"),
        price_msat: Msat(SIXTY.0 * 10_000),
        paid_msat: Msat::default(),
        payment_request: Some("lnbcrt".into()),
        payment_hash: hash().to_string(),
        created_unix_ms: UnixMs(1_000),
        pay_by_unix_ms: UnixMs(9_000),
        deadline_unix_ms: None,
        delivered_minor: SIXTY,
        claim_minor: Minor::ZERO,
        loss_minor: Minor::ZERO,
        funds: None,
        settled: true,
    }
}

/// A dispense of 20s at each of `starts`, with so many notes leaving, one a millisecond.
fn machine(dispenses: &[(u64, u32)]) -> Machine {
    let mut events = Vec::new();
    let mut delivered = 0;
    for (number, (start, notes)) in (1..).zip(dispenses) {
        let mut push = |at, what| {
            let seq = u64::try_from(events.len()).expect("few") + 1;
            events.push(Event {
                seq,
                at_unix_ms: UnixMs(at),
                what,
            });
        };
        let requested = [3, 0, 0, 0];
        push(
            *start,
            What::DispenseStarted {
                dispense: number,
                requested,
                serial: None,
            },
        );
        for note in 0..*notes {
            push(
                start + u64::from(note),
                What::NoteDelivered {
                    dispense: number,
                    position: 1,
                },
            );
        }
        push(
            start + 100,
            What::DispenseEnded {
                dispense: number,
                error: 0,
            },
        );
        delivered += notes;
    }
    let mut totals = [CassetteTotals::default(); 4];
    totals[0] = CassetteTotals {
        position: 1,
        loaded: 50,
        remaining: 50 - delivered,
        delivered,
        ..CassetteTotals::default()
    };
    Machine {
        atm: atm(),
        denominations: [TWENTY, Minor(5_000), Minor::ZERO, Minor::ZERO],
        events,
        totals,
    }
}

fn atm_view(delivered: u32, unaccounted: u32) -> AtmView {
    let cassette = crate::api::CassetteView {
        position: 1,
        denomination_minor: TWENTY,
        loaded: 50,
        delivered,
        rejected: 0,
        retracted: 0,
        unaccounted,
        remaining: 50 - delivered - unaccounted,
        reserved: 0,
    };
    AtmView {
        id: atm(),
        name: "one".into(),
        state: "ready".into(),
        reason: None,
        cassettes: vec![cassette],
        open: Vec::new(),
    }
}

/// Held at 2000, three notes at 3000, settled at 4000, completed.
fn clean() -> Evidence {
    let states = [
        (1_000, InvoiceState::Open, Cause::Added),
        (2_000, InvoiceState::Accepted, Cause::Paid),
        (4_000, InvoiceState::Settled, Cause::SettleCall),
    ];
    Evidence {
        machines: vec![machine(&[(3_000, 3)])],
        ledger: Ledger {
            height: 1,
            money: Money::default(),
            invoices: vec![invoice(history(&states))],
            payments: vec![payment(Outcome::Settled {
                at_unix_ms: UnixMs(4_000),
                on_chain: false,
            })],
        },
        rate: Rate {
            minor_per_btc: 10_000_000,
            currency: "EUR".parse().expect("code"),
        },
        visits: vec![Visit {
            atm: atm(),
            id: id(),
            hash: hash().to_string(),
            amount: SIXTY,
            asked_at: UnixMs(900),
            shown_at: Some(UnixMs(1_100)),
        }],
        sites: Vec::new(),
        statement: Statement {
            cashouts: vec![view("completed")],
            atms: vec![atm_view(3, 0)],
            sites: Vec::new(),
        },
    }
}

/// As [`clean`], refunded at 4000 instead.
fn refunded(notes: u32, loss: Minor) -> Evidence {
    let mut evidence = clean();
    let invoice = &mut evidence.ledger.invoices[0];
    invoice.state = InvoiceState::Canceled;
    invoice.history[2].state = InvoiceState::Canceled;
    let reason = FailReason::InvoiceCanceled;
    evidence.ledger.payments = vec![payment(Outcome::Refunded {
        at_unix_ms: UnixMs(4_000),
        reason,
    })];
    evidence.machines = vec![machine(&[(3_000, notes)])];
    let view = CashOutView {
        loss_minor: loss,
        delivered_minor: loss,
        settled: false,
        ..view("canceled")
    };
    evidence.statement = Statement {
        cashouts: vec![view],
        atms: vec![atm_view(notes, 0)],
        sites: Vec::new(),
    };
    evidence
}

fn verdict(evidence: &Evidence) -> Verdict {
    judge(evidence, &Facts::of(evidence))
}

fn rules(evidence: &Evidence) -> Vec<&'static str> {
    verdict(evidence)
        .violations
        .iter()
        .map(|violation| violation.rule)
        .collect()
}

#[test]
fn a_clean_fleet_is_clean() {
    assert_eq!(verdict(&clean()), Verdict::default());
    assert_eq!(verdict(&refunded(0, Minor::ZERO)), Verdict::default());
    assert_eq!(verdict(&refunded(2, Minor(4_000))), Verdict::default());
}

#[test]
fn a_dispense_without_a_hold() {
    for start in [1_500, 4_001] {
        let mut evidence = clean();
        evidence.machines = vec![machine(&[(start, 3)])];
        assert_eq!(
            rules(&evidence),
            [
                "dispense_without_hold",
                "settled_without_cash",
                "settled_with_wrong_claim"
            ]
        );
    }
    let mut evidence = clean();
    evidence.ledger.invoices[0].memo = format!("ATM atm-002 cash-out {}", id());
    assert!(
        rules(&evidence).contains(&"dispense_without_hold"),
        "another machine's hold is none"
    );
}

#[test]
fn dispensed_twice() {
    let mut evidence = clean();
    evidence.machines = vec![machine(&[(3_000, 3), (3_500, 3)])];
    evidence.statement.atms = vec![atm_view(6, 0)];
    assert_eq!(rules(&evidence), ["overdispensed", "dispensed_again"]);
    evidence.machines = vec![machine(&[(3_000, 1), (3_500, 2)])];
    evidence.statement.atms = vec![atm_view(3, 0)];
    assert_eq!(rules(&evidence), ["dispensed_again"]);
    evidence.machines = vec![machine(&[(3_000, 0), (3_500, 3)])];
    assert_eq!(
        verdict(&evidence),
        Verdict::default(),
        "after a proven zero another try is allowed"
    );
}

#[test]
fn settled_with_no_note_or_too_few() {
    let mut evidence = clean();
    evidence.machines = vec![machine(&[(3_000, 0)])];
    evidence.statement.atms = vec![atm_view(0, 0)];
    assert_eq!(rules(&evidence), ["settled_without_cash", "settled_with_wrong_claim"]);
    evidence.machines = vec![machine(&[(3_000, 2)])];
    evidence.statement.atms = vec![atm_view(2, 0)];
    assert_eq!(rules(&evidence), ["settled_with_wrong_claim"]);
    evidence.statement.cashouts[0].claim_minor = TWENTY;
    assert_eq!(verdict(&evidence), Verdict::default(), "a claim that was paid");
    let owed = CashOutView {
        claim_minor: TWENTY,
        ..view("claim_owed")
    };
    evidence.statement.cashouts = vec![owed];
    let verdict = verdict(&evidence);
    assert!(verdict.violations.is_empty() && verdict.open.len() == 1, "{verdict:?}");
}

#[test]
fn settled_but_the_money_did_not_come() {
    let mut evidence = clean();
    let reason = FailReason::TimedOutOnChain;
    evidence.ledger.payments = vec![payment(Outcome::Refunded {
        at_unix_ms: UnixMs(4_000),
        reason,
    })];
    assert_eq!(rules(&evidence), ["settled_without_money"]);
    let funds = |evidence: &mut Evidence, funds| evidence.statement.cashouts[0].funds = Some(funds);
    for wrong in [Funds::NotFollowed, Funds::Pending, Funds::Final] {
        funds(&mut evidence, wrong);
        assert_eq!(rules(&evidence), ["settled_without_money"], "{wrong:?}");
    }
    // Only "it is lost" excuses it, and only with the loss in the books.
    let lost = |state: &str, loss| CashOutView {
        funds: Some(Funds::Lost),
        settled: false,
        loss_minor: loss,
        ..view(state)
    };
    for state in ["needs_operator", "canceled"] {
        evidence.statement.cashouts = vec![lost(state, SIXTY)];
        assert_eq!(rules(&evidence), Vec::<&str>::new(), "{state}");
        evidence.statement.cashouts = vec![lost(state, TWENTY)];
        assert_eq!(rules(&evidence), ["canceled_with_wrong_loss"], "{state}");
    }
}

#[test]
fn settled_and_the_money_is_on_its_way() {
    let mut evidence = clean();
    evidence.ledger.payments = vec![payment(Outcome::Held)];
    assert_eq!(rules(&evidence), ["settled_without_money"], "nobody says so");
    evidence.statement.cashouts[0].funds = Some(Funds::Pending);
    let found = verdict(&evidence);
    assert!(found.violations.is_empty() && found.open.len() == 1, "{found:?}");
    evidence.statement.cashouts[0].funds = Some(Funds::Lost);
    assert!(
        rules(&evidence).contains(&"settled_without_money"),
        "it is not lost yet"
    );
    evidence.statement.cashouts[0].funds = Some(Funds::Final);
    assert_eq!(
        rules(&evidence),
        ["settled_without_money"],
        "said to be there too early"
    );
}

#[test]
fn canceled_after_cash() {
    assert_eq!(rules(&refunded(3, Minor::ZERO)), ["canceled_with_wrong_loss"]);
    assert_eq!(rules(&refunded(1, Minor(4_000))), ["canceled_with_wrong_loss"]);
    let mut evidence = refunded(3, Minor(4_000));
    evidence.statement.cashouts[0].reason = Some("outcome unknown at the deadline".into());
    let verdict = verdict(&evidence);
    assert!(
        verdict.violations.is_empty() && verdict.excused.len() == 1,
        "{verdict:?}"
    );
}

/// LND cancels a hold by itself, as at a jump of the height, while notes are on their way out.
#[test]
fn cash_out_and_the_hold_gone_is_a_loss_with_its_amount() {
    let with = |notes, loss| {
        let mut evidence = refunded(notes, loss);
        evidence.statement.cashouts[0].state = "needs_operator".into();
        evidence.statement.cashouts[0].ended = false;
        evidence
    };
    let named = verdict(&with(3, SIXTY));
    assert!(named.violations.is_empty() && named.open.len() == 1, "{named:?}");
    for wrong in [with(3, Minor::ZERO), with(3, TWENTY), with(1, SIXTY)] {
        assert_eq!(rules(&wrong), ["canceled_with_wrong_loss"]);
    }
}

#[test]
fn held_and_nobody_says_so() {
    let mut evidence = clean();
    let invoice = &mut evidence.ledger.invoices[0];
    invoice.state = InvoiceState::Accepted;
    invoice.history.pop();
    evidence.ledger.payments = vec![payment(Outcome::Held)];
    assert_eq!(rules(&evidence), ["held_unnamed"]);
    evidence.statement.cashouts = vec![view("outcome_unknown")];
    let verdict = verdict(&evidence);
    assert!(verdict.violations.is_empty(), "{verdict:?}");
    assert!(verdict.open[0].why.contains("60.00 of 60.00"), "{verdict:?}");
    evidence.statement.cashouts.clear();
    assert_eq!(rules(&evidence), ["unknown_to_daemon", "forgotten"]);
}

#[test]
fn ends_that_contradict_the_node() {
    let mut evidence = clean();
    evidence.statement.cashouts = vec![view("canceled")];
    assert_eq!(rules(&evidence), ["wrong_end"]);
    let mut evidence = refunded(0, Minor::ZERO);
    evidence.statement.cashouts = vec![view("completed")];
    assert_eq!(rules(&evidence), ["wrong_end"]);
    let mut evidence = clean();
    evidence.ledger.invoices.clear();
    evidence.machines = vec![machine(&[])];
    evidence.statement.atms = vec![atm_view(0, 0)];
    assert_eq!(rules(&evidence), ["no_invoice", "no_invoice"]);
}

#[test]
fn terms_that_were_not_agreed() {
    let mut evidence = clean();
    evidence.visits[0].amount = TWENTY;
    assert_eq!(rules(&evidence), ["wrong_terms"]);
    let mut evidence = clean();
    evidence.statement.cashouts[0].amount_minor = TWENTY;
    assert_eq!(rules(&evidence), ["wrong_terms"]);
    let mut evidence = clean();
    evidence.ledger.invoices[0].memo = "coffee".into();
    assert!(rules(&evidence).contains(&"strange_invoice"));
}

#[test]
fn books_that_do_not_match_the_notes() {
    let mut evidence = clean();
    evidence.statement.atms = vec![atm_view(2, 0)];
    assert_eq!(rules(&evidence), ["books_wrong"], "a note is missing");
    evidence.statement.atms = vec![atm_view(4, 0)];
    assert_eq!(rules(&evidence), ["books_wrong"], "a note too many");
    evidence.statement.atms = vec![atm_view(2, 4)];
    let found = verdict(&evidence);
    assert!(found.violations.is_empty() && found.excused.len() == 1, "{found:?}");
    evidence.statement.atms[0].cassettes[0].loaded = 49;
    assert_eq!(rules(&evidence), ["books_wrong"], "the books themselves do not balance");
    evidence.statement.atms[0].cassettes.clear();
    assert_eq!(rules(&evidence), ["forgotten"], "a cassette is not named");
    evidence.statement.atms.clear();
    assert_eq!(rules(&evidence), ["forgotten"]);
    let mut evidence = clean();
    evidence.machines[0].totals[0].rejected = 1;
    assert!(rules(&evidence).contains(&"emulator_wrong"));
}

#[test]
fn a_stuck_note_is_in_the_books_of_a_machine_that_serves_nobody() {
    let mut evidence = clean();
    let totals = &mut evidence.machines[0].totals[0];
    (totals.remaining, totals.stuck) = (totals.remaining - 1, 1);
    assert_eq!(rules(&evidence), ["books_wrong"], "it would promise the note");
    evidence.statement.atms[0].state = "out_of_service".into();
    let found = verdict(&evidence);
    assert!(found.violations.is_empty() && found.excused.len() == 1, "{found:?}");
    evidence.machines[0].totals[0].remaining -= 1;
    evidence.machines[0].totals[0].rejected += 1;
    assert_eq!(rules(&evidence), ["books_wrong"], "one more is not stuck");
}

#[test]
fn a_note_at_the_exit_counts_when_it_goes_and_for_its_own_dispense() {
    let mut machine = machine(&[(3_000, 2)]);
    let at_exit = What::NoteAtExit {
        dispense: 1,
        position: 1,
    };
    machine.events.insert(
        3,
        Event {
            seq: 9,
            at_unix_ms: UnixMs(3_050),
            what: at_exit,
        },
    );
    let before = physical::dispenses(&machine);
    assert_eq!((before[0].value, before[0].at_exit.len()), (Minor(4_000), 1));
    let started = What::DispenseStarted {
        dispense: 2,
        requested: [1, 0, 0, 0],
        serial: None,
    };
    let taken = What::NoteDelivered {
        dispense: 2,
        position: 1,
    };
    for (seq, what) in [(10, started), (11, taken)] {
        machine.events.push(Event {
            seq,
            at_unix_ms: UnixMs(5_000),
            what,
        });
    }
    let after = physical::dispenses(&machine);
    assert_eq!((after[0].value, after[0].at_exit.len(), after[1].notes), (SIXTY, 0, 0));
}

#[test]
fn the_next_customer_is_not_charged_with_the_last_ones_notes() {
    // The first settles slowly; the second pays meanwhile and gets its notes.
    let mut evidence = clean();
    evidence.ledger.invoices[0].history[2].at_unix_ms = UnixMs(9_000);
    let mut second = invoice(history(&[
        (4_000, InvoiceState::Open, Cause::Added),
        (5_000, InvoiceState::Accepted, Cause::Paid),
    ]));
    second.hash = PaymentHash([8; 32]);
    evidence.ledger.invoices.push(second);
    evidence.machines = vec![machine(&[(3_000, 3), (6_000, 3)])];
    let facts = Facts::of(&evidence);
    let delivered: Vec<Minor> = facts.cashouts.iter().map(facts::Fact::delivered).collect();
    assert_eq!(delivered, [SIXTY, SIXTY]);
}

#[test]
fn a_daemon_that_does_nothing_is_found_out() {
    let told = |evidence: &Evidence, now| {
        let found = liveness(evidence, &Facts::of(evidence), UnixMs(now), 1_000);
        found.iter().map(|violation| violation.rule).collect::<Vec<_>>()
    };
    assert!(told(&clean(), 9_000).is_empty());
    let mut nobody = clean();
    nobody.visits.clear();
    assert_eq!(told(&nobody, 9_000), ["nothing_happened"]);
    let mut hung = clean();
    hung.machines = vec![machine(&[])];
    hung.ledger.invoices[0].state = InvoiceState::Accepted;
    hung.ledger.invoices[0].history.pop();
    hung.statement.cashouts = vec![view("held")];
    assert!(told(&hung, 3_000).is_empty(), "one customer may have met a fault");
    assert_eq!(told(&hung, 3_001), ["held_too_long"]);
    hung.statement.cashouts = vec![view("needs_operator")];
    assert!(told(&hung, 3_001).is_empty(), "it says so");
    hung.ledger.invoices = vec![hung.ledger.invoices[0].clone(); 10];
    assert_eq!(told(&hung, 3_000), ["nothing_happened"]);
}

#[test]
fn a_server_lists_its_sites_as_they_are() {
    let name = || "site-1".parse().expect("name");
    let mut evidence = clean();
    evidence.sites = vec![(name(), vec![atm()])];
    evidence.statement.sites = vec![SiteView {
        site: name(),
        down: false,
        heard_unix_ms: UnixMs(5_000),
        report: crate::api::SiteReport {
            version: "1".into(),
            now_unix_ms: UnixMs(5_000),
            atms: vec![atm_view(3, 0)],
            waiting: Vec::new(),
        },
    }];
    assert_eq!(rules(&evidence), Vec::<&str>::new());
    let lie = |lie: fn(&mut Evidence)| {
        let mut evidence = evidence.clone();
        lie(&mut evidence);
        rules(&evidence)
    };
    assert_eq!(lie(|e| e.statement.sites.clear()), ["site_unheard"]);
    assert_eq!(lie(|e| e.statement.sites[0].down = true), ["site_unheard"]);
    assert_eq!(lie(|e| e.statement.sites[0].report.atms.clear()), ["site_unheard"]);
    assert_eq!(lie(|e| e.sites.clear()), ["site_unheard"], "of no site at all");
}

#[test]
fn every_rule_is_explained() {
    let page = include_str!("../../../docs/SIMULATION.md");
    let rules = [
        include_str!("rules.rs")
            .split('"')
            .skip(1)
            .step_by(2)
            .collect::<Vec<_>>(),
        include_str!("liveness.rs").split('"').skip(1).step_by(2).collect(),
        include_str!("sites.rs").split('"').skip(1).step_by(2).collect(),
        include_str!("../fleet/run.rs").split("trouble(\"").skip(1).collect(),
        concat!(include_str!("../fleet/keeper.rs"), include_str!("../fleet/cycles.rs"))
            .split("\n")
            .flat_map(|line| line.split("trouble(\"").skip(1))
            .collect(),
    ];
    let states = ["needs_operator", "claim_owed"];
    let is_rule = |word: &str| word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let named = rules
        .iter()
        .flatten()
        .map(|text| text.split('"').next().unwrap_or_default());
    let found: Vec<&str> = named.filter(|word| is_rule(word) && !states.contains(word)).collect();
    for one in [
        "dispense_without_hold",
        "held_unnamed",
        "books_wrong",
        "journal_damaged",
        "state_differs",
        "not_ready",
    ] {
        assert!(found.contains(&one), "{one} in {found:?}");
    }
    for rule in found {
        assert!(
            page.contains(&format!("| `{rule}` |")),
            "{rule} is not in docs/SIMULATION.md"
        );
    }
}
