//! Random sequences of everything, against what must always be true.

use proptest::prelude::*;

use super::*;

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
    Peer {
        order: Finality,
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
        1 => prop_oneof![Just(Finality::Hold), Just(Finality::Release), Just(Finality::Lose)]
            .prop_map(|order| Step::Peer { order }),
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
        Step::Peer { order } => node.set_finality(order, *now),
        Step::Restart => {
            let mut fresh = Node::new(NodeOptions::default(), HEIGHT);
            node.entries().for_each(|entry| fresh.restore(entry));
            fresh.restored();
            fresh.set_watching(node.watching);
            fresh.peer_online = node.peer_online;
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
        for htlc in record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Settled) {
            let key = (htlc.expiry_height, htlc.htlc_index, record.hash);
            let resolved = node.resolution(htlc.htlc_index).unwrap();
            assert_eq!(resolved.is_none(), node.unresolved.contains(&key), "at its end or not");
            if resolved.is_none() {
                held = (held.0 + 1, held.1 + htlc.amount_msat);
            }
        }
        if matches!(record.state, InvoiceState::Accepted | InvoiceState::Settled) {
            assert!(record.paid_msat() >= record.value_msat);
        }
        assert_eq!(record.preimage.is_some(), record.state == InvoiceState::Settled);
    }
    assert_eq!(node.flow.held_htlcs, held.0);
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
    let channel = node.channel();
    assert_eq!(channel.local_msat, money.settled_msat);
    let under_way: u64 = channel.pending.iter().map(|(_, htlc)| htlc.amount_msat).sum();
    assert_eq!(
        channel.capacity_sat * 1000,
        channel.local_msat + channel.remote_msat + under_way,
        "all money of the channel is somewhere"
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
