//! The table of section 3 of the fact sheet on LND, row by row, and random sequences of calls.

use proptest::prelude::*;

use super::record::*;
use super::*;

const START: UnixMs = UnixMs(1_800_000_000_000);
const HEIGHT: u32 = 1_000;

fn node() -> Node {
    Node::new(NodeOptions::default(), HEIGHT)
}

fn preimage(n: u8) -> [u8; 32] {
    [n; 32]
}

fn hash(n: u8) -> PaymentHash {
    Preimage::from_bytes(preimage(n)).hash()
}

fn at(seconds: u64) -> UnixMs {
    UnixMs(START.0 + seconds * 1000)
}

fn request(n: u8) -> AddHold {
    AddHold {
        hash: hash(n).0.to_vec(),
        memo: "cash".into(),
        value: 1_000,
        ..AddHold::default()
    }
}

fn try_add(node: &mut Node, request: &AddHold, now: UnixMs) -> Result<InvoiceRecord, Refusal> {
    node.add_hold(request, [9; 32], now, |_| Ok("lnbcrt".into()))
}

fn add(node: &mut Node, n: u8) -> InvoiceRecord {
    try_add(node, &request(n), START).unwrap()
}

fn order(n: u8) -> PayOrder {
    PayOrder {
        hash: hash(n),
        payment_addr: hex::encode([9; 32]),
        amount_msat: 1_000_000,
        parts: 1,
        missing_parts: 0,
        final_cltv_delta: 80,
        due_at_unix_ms: START,
    }
}

fn pay(node: &mut Node, order: PayOrder) -> u64 {
    let due = order.due_at_unix_ms;
    let id = node.pay(order);
    node.tick(due);
    id
}

fn state(node: &Node, n: u8) -> InvoiceState {
    node.lookup(&hash(n).0).unwrap().state
}

fn status(node: &Node, id: u64) -> PaymentStatus {
    node.payment(id).unwrap().status()
}

fn mine(node: &mut Node, blocks: u32) {
    for _ in 0..blocks {
        node.mine(at(1));
    }
}

/// A node with invoice 1 in the state named, all by calls.
fn node_in(name: &str) -> Node {
    let mut node = node();
    add(&mut node, 1);
    match name {
        "OPEN" => {}
        "OPEN, partial" => {
            _ = pay(
                &mut node,
                PayOrder {
                    parts: 2,
                    missing_parts: 1,
                    ..order(1)
                },
            )
        }
        "ACCEPTED" => _ = pay(&mut node, order(1)),
        "SETTLED" => {
            pay(&mut node, order(1));
            node.settle(&preimage(1), START).unwrap();
        }
        "CANCELED" => node.cancel(&hash(1).0, START).unwrap(),
        other => panic!("no state {other}"),
    }
    node
}

#[test]
fn settle_answers_by_state() {
    let rows = [
        ("ACCEPTED", Ok(()), InvoiceState::Settled),
        ("SETTLED", Ok(()), InvoiceState::Settled),
        ("OPEN", Err("invoice still open"), InvoiceState::Open),
        ("OPEN, partial", Err("invoice still open"), InvoiceState::Open),
        ("CANCELED", Err("invoice already canceled"), InvoiceState::Canceled),
    ];
    for (before, answer, after) in rows {
        let mut node = node_in(before);
        let got = node.settle(&preimage(1), START).map_err(|refusal| refusal.to_string());
        assert_eq!(got, answer.map_err(str::to_owned), "{before}");
        assert_eq!(state(&node, 1), after, "{before}");
    }
    let mut node = node_in("ACCEPTED");
    assert_eq!(
        node.settle(&preimage(2), START).unwrap_err().to_string(),
        "unable to locate invoice"
    );
    for len in [0, 31, 33] {
        let refusal = node.settle(&vec![1; len], START).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("invalid preimage length of {len}, want 32")
        );
    }
    assert_eq!(state(&node, 1), InvoiceState::Accepted);
}

#[test]
fn cancel_answers_by_state_and_fails_held_htlcs_back() {
    let rows = [
        ("OPEN", Ok(()), InvoiceState::Canceled),
        ("OPEN, partial", Ok(()), InvoiceState::Canceled),
        ("ACCEPTED", Ok(()), InvoiceState::Canceled),
        ("CANCELED", Ok(()), InvoiceState::Canceled),
        ("SETTLED", Err("invoice already settled"), InvoiceState::Settled),
    ];
    for (before, answer, after) in rows {
        let mut node = node_in(before);
        let got = node.cancel(&hash(1).0, at(5)).map_err(|refusal| refusal.to_string());
        assert_eq!(got, answer.map_err(str::to_owned), "{before}");
        assert_eq!(state(&node, 1), after, "{before}");
        for payment in node.payments() {
            let refunded = payment.status() == PaymentStatus::Failed(FailReason::InvoiceCanceled);
            assert_eq!(refunded, answer.is_ok(), "{before}");
        }
    }
    let mut node = node();
    assert_eq!(
        node.cancel(&hash(1).0, START).unwrap_err().to_string(),
        "unable to locate invoice"
    );
    assert_eq!(
        node.cancel(&[1; 8], START).unwrap_err().to_string(),
        "invalid hash length of 8, want 32"
    );
}

#[test]
fn add_refuses_what_lnd_refuses() {
    type Change = fn(&mut AddHold);
    let rows: [(Change, &str); 13] = [
        (|r| r.hash.truncate(31), "invalid hash length of 31, want 32"),
        (|r| r.hash.clear(), "invalid hash length of 0, want 32"),
        (|r| r.value = -1, "amount cannot be negative"),
        (|r| (r.value, r.value_msat) = (0, -1), "amount cannot be negative"),
        (|r| r.value_msat = 1, "sat and msat arguments are mutually exclusive"),
        (
            |r| r.cltv_expiry = 1,
            "CLTV delta of 1 must be greater than minimum of 24",
        ),
        (
            |r| r.cltv_expiry = 23,
            "CLTV delta of 23 must be greater than minimum of 24",
        ),
        (
            |r| r.cltv_expiry = 65_536,
            "CLTV delta of 65536 is too large, max accepted is: 65535",
        ),
        (
            |r| r.expiry = 31_536_001,
            "expiry of 31536001s greater than max expiry 31536000s",
        ),
        (
            |r| r.memo = "x".repeat(1025),
            "memo too large: 1025 bytes (maxsize=1024)",
        ),
        (
            |r| r.description_hash = vec![1],
            "description hash is 1 bytes, must be 32",
        ),
        (|r| r.value = i64::MAX, "unable to encode invoice: amount too large"),
        (|r| r.value = i64::MIN, "amount cannot be negative"),
    ];
    for (change, text) in rows {
        let mut node = node();
        let mut request = request(1);
        change(&mut request);
        assert_eq!(try_add(&mut node, &request, START).unwrap_err().to_string(), text);
        assert_eq!(node.invoices().count(), 0, "{text}");
    }
}

#[test]
fn add_refuses_a_known_hash_in_any_state() {
    for name in ["OPEN", "OPEN, partial", "ACCEPTED", "SETTLED", "CANCELED"] {
        let mut node = node_in(name);
        let before = node.lookup(&hash(1).0).unwrap().clone();
        let refusal = try_add(&mut node, &request(1), at(3)).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "invoice with payment hash already exists",
            "{name}"
        );
        assert_eq!(*node.lookup(&hash(1).0).unwrap(), before, "{name}");
    }
}

#[test]
fn add_fills_in_defaults_and_accepts_the_bounds() {
    let mut node = node();
    let record = add(&mut node, 1);
    assert_eq!(
        (record.expiry_s, record.cltv_expiry, record.value_msat),
        (86_400, 80, 1_000_000)
    );
    let negative = AddHold {
        expiry: -5,
        value: 0,
        ..request(2)
    };
    let record = try_add(&mut node, &negative, START).unwrap();
    assert_eq!(
        (record.expiry_s, record.value_msat),
        (86_400, 0),
        "value 0 is an any-amount invoice"
    );
    let bounds = AddHold {
        value: 0,
        value_msat: 1_500,
        cltv_expiry: 24,
        expiry: 31_536_000,
        memo: "x".repeat(1024),
        ..request(3)
    };
    let record = try_add(&mut node, &bounds, START).unwrap();
    assert_eq!(
        (record.cltv_expiry, record.value_msat, record.add_index),
        (24, 1_500, 3)
    );
}

#[test]
fn lookup_of_an_unknown_hash_is_not_found() {
    assert_eq!(node().lookup(&hash(1).0), Err(Refusal::NotFound));
    assert_eq!(Refusal::NotFound.to_string(), "unable to locate invoice");
    assert_eq!(
        node().lookup(&[]).unwrap_err().to_string(),
        "payment hash must be exactly 32 bytes, is instead 0"
    );
}

#[test]
fn a_set_stays_open_until_complete_and_each_part_has_its_timer() {
    let mut node = node();
    add(&mut node, 1);
    let first = pay(
        &mut node,
        PayOrder {
            parts: 3,
            missing_parts: 1,
            ..order(1)
        },
    );
    assert_eq!(state(&node, 1), InvoiceState::Open);
    assert_eq!(status(&node, first), PaymentStatus::InFlight);
    assert_eq!(node.payment(first).unwrap().money().held_msat, 333_334 + 333_333);

    node.tick(UnixMs(at(120).0 - 1));
    assert_eq!(status(&node, first), PaymentStatus::InFlight);
    node.tick(at(120));
    assert_eq!(status(&node, first), PaymentStatus::Failed(FailReason::MppTimeout));
    assert_eq!(state(&node, 1), InvoiceState::Open);

    // The set that timed out does not count.
    let second = pay(
        &mut node,
        PayOrder {
            parts: 2,
            missing_parts: 1,
            due_at_unix_ms: at(121),
            ..order(1)
        },
    );
    assert_eq!(state(&node, 1), InvoiceState::Open);
    let third = pay(
        &mut node,
        PayOrder {
            parts: 2,
            missing_parts: 1,
            due_at_unix_ms: at(200),
            ..order(1)
        },
    );
    assert_eq!(
        state(&node, 1),
        InvoiceState::Accepted,
        "the parts of two payments make one set"
    );
    // The timer of a part of a complete set means nothing.
    node.tick(at(500));
    assert_eq!(status(&node, second), PaymentStatus::InFlight);
    node.settle(&preimage(1), at(501)).unwrap();
    assert_eq!(status(&node, second), PaymentStatus::Succeeded);
    assert_eq!(status(&node, third), PaymentStatus::Succeeded);
    assert_eq!(node.lookup(&hash(1).0).unwrap().paid_msat(), 1_000_000);
}

#[test]
fn htlcs_are_refused_for_lnds_reasons() {
    type Change = fn(&mut PayOrder);
    let rows: [(&str, Change, FailReason); 9] = [
        ("ACCEPTED", |_| (), FailReason::InvoiceNotOpen),
        ("SETTLED", |_| (), FailReason::InvoiceNotOpen),
        ("CANCELED", |_| (), FailReason::InvoiceNotOpen),
        ("OPEN", |o| o.hash = hash(2), FailReason::UnknownInvoice),
        ("OPEN", |o| o.payment_addr.clear(), FailReason::UnknownInvoice),
        ("OPEN", |o| o.amount_msat -= 1, FailReason::AmountTooLow),
        ("OPEN", |o| o.final_cltv_delta = 79, FailReason::ExpiryTooSoon),
        ("OPEN, partial", |o| o.amount_msat += 1, FailReason::SetTotalMismatch),
        ("OPEN", |o| o.due_at_unix_ms = at(86_400), FailReason::InvoiceNotOpen),
    ];
    for (name, change, reason) in rows {
        let mut node = node_in(name);
        let mut order = order(1);
        change(&mut order);
        let id = pay(&mut node, order);
        assert_eq!(status(&node, id), PaymentStatus::Failed(reason), "{name}");
        assert_eq!(
            node.payment(id).unwrap().money().refunded_msat,
            node.payment(id).unwrap().money().sent_msat
        );
    }
}

#[test]
fn a_low_final_delta_of_the_invoice_is_raised_to_lnds_own() {
    let mut node = node();
    try_add(
        &mut node,
        &AddHold {
            cltv_expiry: 24,
            ..request(1)
        },
        START,
    )
    .unwrap();
    let id = pay(
        &mut node,
        PayOrder {
            final_cltv_delta: 23,
            ..order(1)
        },
    );
    assert_eq!(status(&node, id), PaymentStatus::Failed(FailReason::ExpiryTooSoon));
    pay(
        &mut node,
        PayOrder {
            final_cltv_delta: 24,
            ..order(1)
        },
    );
    assert_eq!(state(&node, 1), InvoiceState::Accepted);
}

#[test]
fn overpayment_has_no_bound_and_is_settled_in_full() {
    let mut node = node();
    add(&mut node, 1);
    let id = pay(
        &mut node,
        PayOrder {
            amount_msat: 5_000_000,
            parts: 7,
            ..order(1)
        },
    );
    node.settle(&preimage(1), START).unwrap();
    assert_eq!(node.lookup(&hash(1).0).unwrap().paid_msat(), 5_000_000);
    assert_eq!(node.payment(id).unwrap().money().settled_msat, 5_000_000);
    assert_eq!(
        node.payment(id).unwrap().preimage,
        Some(Preimage::from_bytes(preimage(1)))
    );
}

#[test]
fn expiry_cancels_open_only() {
    let rows = [
        ("OPEN", InvoiceState::Canceled),
        ("OPEN, partial", InvoiceState::Canceled),
        ("ACCEPTED", InvoiceState::Accepted),
        ("SETTLED", InvoiceState::Settled),
    ];
    for (name, after) in rows {
        let mut node = node();
        try_add(
            &mut node,
            &AddHold {
                expiry: 60,
                ..request(1)
            },
            START,
        )
        .unwrap();
        match name {
            "OPEN, partial" => {
                _ = pay(
                    &mut node,
                    PayOrder {
                        parts: 2,
                        missing_parts: 1,
                        ..order(1)
                    },
                )
            }
            "ACCEPTED" | "SETTLED" => _ = pay(&mut node, order(1)),
            _ => {}
        }
        if name == "SETTLED" {
            node.settle(&preimage(1), START).unwrap();
        }
        let before = state(&node, 1);
        node.tick(UnixMs(at(60).0 - 1));
        assert_eq!(state(&node, 1), before, "{name}");
        node.tick(at(60));
        assert_eq!(state(&node, 1), after, "{name}");
        if name == "OPEN, partial" {
            assert_eq!(status(&node, 1), PaymentStatus::Failed(FailReason::InvoiceExpired));
            assert_eq!(
                node.lookup(&hash(1).0).unwrap().history.last().unwrap().cause,
                Cause::Expired
            );
        }
        node.tick(at(1_000_000));
        assert_eq!(state(&node, 1), after, "{name}: nothing further happens by time");
    }
}

#[test]
fn an_accepted_invoice_is_canceled_at_its_lowest_expiry_less_delta() {
    for (delta, blocks) in [(18, 62), (12, 68)] {
        let mut node = Node::new(
            NodeOptions {
                hold_expiry_delta: delta,
                ..NodeOptions::default()
            },
            HEIGHT,
        );
        add(&mut node, 1);
        // The second part is sent later and expires later: the first one counts.
        pay(
            &mut node,
            PayOrder {
                parts: 2,
                missing_parts: 1,
                ..order(1)
            },
        );
        pay(
            &mut node,
            PayOrder {
                parts: 2,
                missing_parts: 1,
                final_cltv_delta: 200,
                ..order(1)
            },
        );
        mine(&mut node, blocks - 1);
        assert_eq!(state(&node, 1), InvoiceState::Accepted);
        mine(&mut node, 1);
        assert_eq!(state(&node, 1), InvoiceState::Canceled);
        assert_eq!(status(&node, 1), PaymentStatus::Failed(FailReason::HoldExpired));
        assert_eq!(status(&node, 2), PaymentStatus::Failed(FailReason::HoldExpired));
        let refusal = node.settle(&preimage(1), at(2)).unwrap_err();
        assert_eq!(refusal.to_string(), "invoice already canceled");
    }
}

#[test]
fn a_set_completed_too_close_to_an_early_parts_expiry_is_canceled_at_once() {
    let mut node = node();
    add(&mut node, 1);
    pay(
        &mut node,
        PayOrder {
            parts: 2,
            missing_parts: 1,
            ..order(1)
        },
    );
    mine(&mut node, 70);
    pay(
        &mut node,
        PayOrder {
            parts: 2,
            missing_parts: 1,
            due_at_unix_ms: at(2),
            ..order(1)
        },
    );
    let record = node.lookup(&hash(1).0).unwrap();
    let states: Vec<InvoiceState> = record.history.iter().map(|entry| entry.state).collect();
    assert_eq!(
        states,
        [InvoiceState::Open, InvoiceState::Accepted, InvoiceState::Canceled]
    );
}

#[test]
fn while_the_watchers_are_off_only_calls_change_anything() {
    let mut node = node_in("ACCEPTED");
    try_add(
        &mut node,
        &AddHold {
            expiry: 60,
            ..request(2)
        },
        START,
    )
    .unwrap();
    node.set_watching(false);
    mine(&mut node, 70);
    node.tick(at(500));
    assert_eq!(
        (state(&node, 1), state(&node, 2)),
        (InvoiceState::Accepted, InvoiceState::Open)
    );
    let mut rescued = node_in("ACCEPTED");
    rescued.set_watching(false);
    mine(&mut rescued, 70);
    rescued.settle(&preimage(1), at(500)).unwrap();
    assert_eq!(status(&rescued, 1), PaymentStatus::Succeeded);

    node.set_watching(true);
    node.tick(at(500));
    assert_eq!(
        (state(&node, 1), state(&node, 2)),
        (InvoiceState::Canceled, InvoiceState::Canceled)
    );
}

#[test]
fn a_settle_after_the_htlc_ended_on_chain_brings_no_money() {
    let mut node = node_in("ACCEPTED");
    node.set_watching(false);
    mine(&mut node, 80);
    node.settle(&preimage(1), at(500)).unwrap();
    assert_eq!(state(&node, 1), InvoiceState::Settled);
    assert_eq!(status(&node, 1), PaymentStatus::Failed(FailReason::TimedOutOnChain));
}

#[test]
fn a_full_channel_takes_no_more_htlcs_until_one_is_resolved() {
    let mut node = Node::new(
        NodeOptions {
            max_htlcs: 2,
            ..NodeOptions::default()
        },
        HEIGHT,
    );
    for n in 1..=3 {
        add(&mut node, n);
    }
    pay(&mut node, order(1));
    pay(&mut node, order(2));
    let third = pay(&mut node, order(3));
    assert_eq!(status(&node, third), PaymentStatus::Failed(FailReason::ChannelFull));
    node.cancel(&hash(1).0, START).unwrap();
    pay(&mut node, order(3));
    assert_eq!(state(&node, 3), InvoiceState::Accepted);
}

#[test]
fn history_is_in_order_over_all_invoices() {
    let mut node = node();
    add(&mut node, 1);
    add(&mut node, 2);
    pay(&mut node, order(2));
    pay(
        &mut node,
        PayOrder {
            due_at_unix_ms: at(1),
            ..order(1)
        },
    );
    node.settle(&preimage(2), at(2)).unwrap();
    node.cancel(&hash(1).0, at(3)).unwrap();
    let line = |n| -> Vec<(u64, Cause)> {
        let record = node.lookup(&hash(n).0).unwrap();
        record.history.iter().map(|entry| (entry.seq, entry.cause)).collect()
    };
    assert_eq!(line(1), [(1, Cause::Added), (4, Cause::Paid), (6, Cause::CancelCall)]);
    assert_eq!(line(2), [(2, Cause::Added), (3, Cause::Paid), (5, Cause::SettleCall)]);
}

#[derive(Debug, Clone)]
enum Step {
    Add {
        n: u8,
        expiry: i64,
        cltv: u64,
    },
    Pay {
        n: u8,
        parts: u32,
        missing: u32,
        extra_msat: i64,
        delta: u32,
        after_s: u64,
    },
    Settle {
        n: u8,
    },
    Cancel {
        n: u8,
    },
    Mine {
        blocks: u32,
    },
    Wait {
        seconds: u64,
    },
    Watch {
        on: bool,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..4_u8;
    prop_oneof![
        2 => (n.clone(), 0..300_i64, 20..90_u64).prop_map(|(n, expiry, cltv)| Step::Add { n, expiry, cltv }),
        4 => (n.clone(), 1..4_u32, 0..3_u32, -1..2_i64, 70..200_u32, 0..100_u64).prop_map(
            |(n, parts, missing, extra_msat, delta, after_s)| Step::Pay {
                n,
                parts,
                missing: missing.min(parts - 1),
                extra_msat,
                delta,
                after_s,
            }
        ),
        1 => n.clone().prop_map(|n| Step::Settle { n }),
        1 => n.prop_map(|n| Step::Cancel { n }),
        1 => (1..60_u32).prop_map(|blocks| Step::Mine { blocks }),
        2 => (1..150_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => any::<bool>().prop_map(|on| Step::Watch { on }),
        1 => Just(Step::Restart),
    ]
}

fn apply(node: &mut Node, step: &Step, now: &mut UnixMs) {
    match *step {
        Step::Add { n, expiry, cltv } => {
            _ = try_add(
                node,
                &AddHold {
                    expiry,
                    cltv_expiry: cltv,
                    ..request(n)
                },
                *now,
            );
        }
        Step::Pay {
            n,
            parts,
            missing,
            extra_msat,
            delta,
            after_s,
        } => {
            node.pay(PayOrder {
                amount_msat: 1_000_000_u64.saturating_add_signed(extra_msat),
                parts,
                missing_parts: missing,
                final_cltv_delta: delta,
                due_at_unix_ms: UnixMs(now.0 + after_s * 1000),
                ..order(n)
            });
        }
        Step::Settle { n } => _ = node.settle(&preimage(n), *now),
        Step::Cancel { n } => _ = node.cancel(&hash(n).0, *now),
        Step::Mine { blocks } => (0..blocks).for_each(|_| node.mine(*now)),
        Step::Wait { seconds } => now.0 += seconds * 1000,
        Step::Watch { on } => node.set_watching(on),
        Step::Restart => {
            let mut fresh = Node::new(NodeOptions::default(), HEIGHT);
            node.entries().for_each(|entry| fresh.restore(entry));
            fresh.restored();
            fresh.set_watching(node.watching);
            *node = fresh;
        }
    }
    node.tick(*now);
}

/// What must hold after every step.
fn check(node: &Node) {
    let mut held = (0, 0_u64);
    for record in node.invoices() {
        let finals = record.history.iter().filter(|entry| entry.state.is_final()).count();
        assert_eq!(
            finals,
            usize::from(record.state.is_final()),
            "a final state is entered once"
        );
        assert_eq!(record.history.last().unwrap().state, record.state);
        assert!(record.history.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        for htlc in record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Accepted) {
            held = (held.0 + 1, held.1 + htlc.amount_msat);
            assert!(!record.state.is_final(), "a final invoice holds nothing");
        }
        if matches!(record.state, InvoiceState::Accepted | InvoiceState::Settled) {
            assert!(record.paid_msat() >= record.value_msat);
        }
        assert_eq!(record.preimage.is_some(), record.state == InvoiceState::Settled);
    }
    assert_eq!(node.held_htlcs, held.0);
    let money = node
        .payments()
        .fold(Money::default(), |sum, payment| sum.plus(payment.money()));
    assert_eq!(
        money.sent_msat,
        money.held_msat + money.settled_msat + money.refunded_msat
    );
    assert_eq!(
        money.held_msat, held.1,
        "the customers and the node agree on what is held"
    );
}

proptest! {
    #[test]
    fn money_is_conserved_and_final_states_stay(steps in prop::collection::vec(step(), 1..60)) {
        let (mut node, mut now) = (node(), START);
        let mut log: BTreeMap<String, Entry> = BTreeMap::new();
        for step in &steps {
            apply(&mut node, step, &mut now);
            check(&node);
            if !matches!(step, Step::Restart) {
                // What the changes say, folded, is the whole truth: nothing changes unnoted.
                for entry in node.take_changes().0 {
                    let key = match &entry {
                        Entry::Height(_) => "height".into(),
                        Entry::Invoice(record) => format!("i{}", record.hash),
                        Entry::Payment(payment) => format!("p{}", payment.id),
                    };
                    log.insert(key, entry);
                }
                let told: Vec<&Entry> = log.values().filter(|entry| !matches!(entry, Entry::Height(_))).collect();
                let known: Vec<Entry> = node.entries().skip(1).collect();
                prop_assert_eq!(told.len(), known.len());
                prop_assert!(known.iter().all(|entry| told.contains(&entry)));
            }
        }
        // In the end, when time has passed with the watchers on, nothing is left open or held.
        node.set_watching(true);
        node.tick(UnixMs(now.0 + 400 * 86_400_000));
        (0..400).for_each(|_| node.mine(UnixMs(now.0 + 400 * 86_400_000)));
        check(&node);
        prop_assert!(node.invoices().all(|record| record.state.is_final()));
        prop_assert!(node.payments().all(|payment| payment.status().is_final()));
    }
}
