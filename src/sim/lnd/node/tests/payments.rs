//! HTLCs, sets, time, height and the record of it.

use super::*;

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

#[test]
fn customers_pay_no_more_than_the_peer_has_beyond_its_reserve() {
    let mut node = Node::new(
        NodeOptions {
            capacity_sat: 10_000,
            ..NodeOptions::default()
        },
        HEIGHT,
    );
    for n in 1..=4 {
        add(&mut node, n);
    }
    let of = |n, amount_msat| PayOrder {
        amount_msat,
        ..order(n)
    };
    pay(&mut node, of(1, 6_000_000));
    let refused = pay(&mut node, of(2, 3_900_001));
    assert_eq!(status(&node, refused), PaymentStatus::Failed(FailReason::NoBalance));
    pay(&mut node, of(2, 3_900_000));
    let (before, channel) = (node.channel(), (0, 100_000, 2));
    assert_eq!((before.local_msat, before.remote_msat, before.pending.len()), channel);
    node.settle(&preimage(1), START).unwrap();
    node.cancel(&hash(2).0, START).unwrap();
    let after = node.channel();
    assert_eq!(
        (after.local_msat, after.remote_msat, after.pending.len()),
        (6_000_000, 4_000_000, 0)
    );
    let refused = pay(&mut node, of(3, 3_900_001));
    assert_eq!(status(&node, refused), PaymentStatus::Failed(FailReason::NoBalance));
    let fits = pay(&mut node, of(4, 3_900_000));
    assert_eq!(status(&node, fits), PaymentStatus::InFlight);
}

fn resolution(node: &Node, n: u8) -> Option<Resolution> {
    let htlc = node.lookup(&hash(n).0).unwrap().htlcs[0].htlc_index;
    node.resolution(htlc).unwrap()
}

fn ended(settled: bool, offchain: bool) -> Option<Resolution> {
    Some(Resolution { settled, offchain })
}

#[test]
fn a_settle_is_final_at_once_while_the_payers_peer_is_there_and_when_it_is_back_otherwise() {
    let node = node_in("SETTLED");
    assert_eq!(resolution(&node, 1), ended(true, true));

    let mut node = node_in("ACCEPTED");
    node.set_finality(Finality::Hold, at(1));
    node.settle(&preimage(1), at(2)).unwrap();
    assert_eq!((state(&node, 1), resolution(&node, 1)), (InvoiceState::Settled, None));
    assert_eq!(
        status(&node, 1),
        PaymentStatus::InFlight,
        "the payer has heard of nothing"
    );
    assert!(node.take_finals().is_empty());
    node.set_finality(Finality::Release, at(3));
    assert_eq!(
        (resolution(&node, 1), status(&node, 1)),
        (ended(true, true), PaymentStatus::Succeeded)
    );
    assert_eq!(
        node.take_finals(),
        [(
            1,
            Resolution {
                settled: true,
                offchain: true
            }
        )]
    );
}

#[test]
fn what_the_peer_took_back_on_chain_is_settled_and_lost() {
    let mut node = node_in("ACCEPTED");
    node.set_finality(Finality::Hold, at(1));
    node.settle(&preimage(1), at(2)).unwrap();
    node.set_finality(Finality::Lose, at(3));
    assert_eq!(
        (state(&node, 1), resolution(&node, 1)),
        (InvoiceState::Settled, ended(false, false))
    );
    assert_eq!(status(&node, 1), PaymentStatus::Failed(FailReason::TimedOutOnChain));

    let mut late = node_in("ACCEPTED");
    late.set_watching(false);
    mine(&mut late, 80);
    late.settle(&preimage(1), at(500)).unwrap();
    assert_eq!(resolution(&late, 1), ended(false, false), "settled after its expiry");
}

#[test]
fn a_settled_htlc_is_claimed_on_chain_before_it_expires() {
    let mut node = node_in("ACCEPTED");
    node.set_finality(Finality::Hold, at(1));
    node.settle(&preimage(1), at(2)).unwrap();
    mine(&mut node, 63);
    assert_eq!(resolution(&node, 1), None);
    mine(&mut node, 1);
    assert_eq!(
        (resolution(&node, 1), status(&node, 1)),
        (ended(true, false), PaymentStatus::Succeeded)
    );
}

#[test]
fn a_canceled_htlc_ends_without_money_and_nothing_is_kept_without_the_store() {
    let mut node = node_in("ACCEPTED");
    node.store_resolutions(false);
    node.cancel(&hash(1).0, at(1)).unwrap();
    assert_eq!(node.resolution(1), Err(Refusal::NotStored));
    assert_eq!(
        node.take_finals(),
        [(
            1,
            Resolution {
                settled: false,
                offchain: true
            }
        )],
        "told all the same"
    );
    node.store_resolutions(true);
    assert_eq!(node.resolution(1), Ok(None), "what ended meanwhile was not kept");
}
