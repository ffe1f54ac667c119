//! The state x event grid of the invoice as a committed table, and its invariants.

use proptest::prelude::*;

use super::*;
use crate::cashout::tests::{grid, same_as_committed};

fn preimage() -> Preimage {
    Preimage::from_bytes([9; 32])
}

fn fresh() -> Invoice {
    of(Owner::Atm {
        atm: "lobby".parse().unwrap(),
        cashout: CashOutId::new(UnixMs(1), 1),
    })
}

fn remote() -> Invoice {
    of(Owner::Remote {
        client: NostrKey([3; 32]),
        commit_ms: 5_000,
        force_blocks_left: 6,
    })
}

fn of(owner: Owner) -> Invoice {
    Invoice::requested(InvoiceSpec {
        hash: preimage().hash(),
        owner,
        amount: Msat(60_000),
        memo: "cash".into(),
        pay_by: UnixMs(2_000),
        hold_ms: 1_000,
        cltv_expiry: 80,
        hold_expiry_delta: 18,
        min_blocks_left: 12,
        private_route_hints: false,
    })
}

fn accepted() -> InvoiceEvent {
    InvoiceEvent::Accepted {
        paid: Msat(60_000),
        lowest_expiry_height: Some(180),
        at: UnixMs(1_500),
    }
}

fn settle_order() -> InvoiceEvent {
    InvoiceEvent::SettleOrdered {
        preimage: preimage(),
        at: Some(UnixMs(1_500)),
    }
}

fn funds(funds: Funds) -> InvoiceEvent {
    InvoiceEvent::FundsSeen {
        funds,
        at: UnixMs(1_600),
    }
}

fn events() -> Vec<(&'static str, InvoiceEvent)> {
    use InvoiceEvent as E;
    let at = UnixMs(1_500);
    vec![
        (
            "opened",
            E::Opened {
                payment_request: "lnbcrt1".into(),
            },
        ),
        ("add_refused", E::AddRefused { reason: "cltv".into() }),
        ("accepted", accepted()),
        (
            "accepted (less than asked)",
            E::Accepted {
                paid: Msat(59_999),
                lowest_expiry_height: Some(180),
                at,
            },
        ),
        (
            "accepted (no expiry height)",
            E::Accepted {
                paid: Msat(60_000),
                lowest_expiry_height: None,
                at,
            },
        ),
        ("committed (62 blocks)", E::Committed { at, height: 100 }),
        ("committed (11 blocks)", E::Committed { at, height: 151 }),
        ("settle_ordered", settle_order()),
        (
            "settle_ordered (other preimage)",
            E::SettleOrdered {
                preimage: Preimage::from_bytes([8; 32]),
                at: Some(at),
            },
        ),
        ("cancel_ordered", E::CancelOrdered { reason: "jam".into() }),
        ("deadline_passed (early)", E::DeadlinePassed { at: UnixMs(1_000) }),
        ("deadline_passed", E::DeadlinePassed { at: UnixMs(9_000) }),
        ("block_seen (62 blocks)", E::BlockSeen { height: 100 }),
        ("block_seen (11 blocks)", E::BlockSeen { height: 151 }),
        ("block_seen (5 blocks)", E::BlockSeen { height: 157 }),
        (
            "settled_at_lnd",
            E::SettledAtLnd {
                paid: Msat(60_000),
                at: Some(at),
                follow: false,
            },
        ),
        (
            "settled_at_lnd (followed)",
            E::SettledAtLnd {
                paid: Msat(60_000),
                at: Some(at),
                follow: true,
            },
        ),
        ("funds_seen (pending)", funds(Funds::Pending)),
        ("funds_seen (final)", funds(Funds::Final)),
        ("funds_seen (lost)", funds(Funds::Lost)),
        ("funds_seen (not followed any more)", funds(Funds::NotFollowed)),
        ("canceled_at_lnd", E::CanceledAtLnd),
    ]
}

fn states() -> Vec<(String, Invoice)> {
    let to = |names: &[&str]| {
        names.iter().fold(fresh(), |state, name| {
            let event = events().into_iter().find(|(n, _)| n == name).unwrap().1;
            apply(&state, &event).unwrap().unwrap()
        })
    };
    let settled_and = |last| match last {
        "settled_at_lnd (followed)" => to(&["opened", "accepted", "settle_ordered", last]),
        _ => to(&[
            "opened",
            "accepted",
            "settle_ordered",
            "settled_at_lnd (followed)",
            last,
        ]),
    };
    let states = [
        to(&[]),
        to(&["opened"]),
        to(&["opened", "accepted"]),
        to(&["opened", "accepted", "committed (62 blocks)"]),
        to(&["opened", "accepted", "settle_ordered"]),
        to(&["opened", "accepted", "settle_ordered", "settled_at_lnd"]),
        settled_and("settled_at_lnd (followed)"),
        settled_and("funds_seen (final)"),
        settled_and("funds_seen (lost)"),
        to(&["opened", "cancel_ordered"]),
        to(&["opened", "canceled_at_lnd"]),
    ];
    let remote = ["opened", "accepted", "committed (62 blocks)"]
        .iter()
        .fold(remote(), |state, name| {
            let event = events().into_iter().find(|(n, _)| n == name).unwrap().1;
            apply(&state, &event).unwrap().unwrap()
        });
    let named = states.into_iter().map(|s| (named(&s), s));
    named
        .chain([("committed by a remote client".to_owned(), remote)])
        .collect()
}

fn named(invoice: &Invoice) -> String {
    match invoice.funds() {
        None | Some(Funds::NotFollowed) => invoice.phase.name().to_owned(),
        Some(funds) => format!("settled, funds {}", funds.as_str()),
    }
}

#[test]
fn a_client_that_committed_and_vanished_does_not_keep_the_customers_money() {
    let (_, committed) = states().pop().unwrap();
    assert_eq!(
        deadline(&committed),
        Some(UnixMs(6_500)),
        "the commit's deadline, not the hold's"
    );
    let at = |at| apply(&committed, &InvoiceEvent::DeadlinePassed { at: UnixMs(at) }).unwrap();
    assert_eq!(at(6_499), None);
    let over = at(6_500).unwrap();
    assert_eq!(over.phase, InvoicePhase::Canceling(CancelReason::CommitDeadline));
    let settle = settle_order();
    assert!(
        apply(&over, &settle).is_err(),
        "the customer has been promised the money"
    );
    let settling = apply(&committed, &settle).unwrap().unwrap();
    assert_eq!(
        deadline(&settling),
        None,
        "once the preimage is here, nothing cancels it"
    );
    assert_eq!(
        apply(&settling, &InvoiceEvent::BlockSeen { height: 170 }).unwrap(),
        None
    );
}

#[test]
fn the_grid_is_the_committed_one() {
    let title = "# Invoice: every state, every event\n\nWritten by a test. `-`: nothing changes. \
                 HTLC expiry 180, delta 18, at least 12 blocks.";
    let cell = |state: &Invoice, event: &InvoiceEvent| match apply(state, event) {
        Err(illegal) => format!("refused: {}", illegal.event),
        Ok(None) => "-".into(),
        Ok(Some(after)) => match &after.phase {
            InvoicePhase::Canceling(reason) | InvoicePhase::Canceled(reason) => {
                format!("**{}** ({reason:?})", after.phase.name())
            }
            _ => format!("**{}**", named(&after)),
        },
    };
    same_as_committed("invoice.md", &grid(title, &states(), &events(), cell));
}

#[test]
fn every_state_but_the_final_ones_has_an_effect() {
    for (name, state) in states() {
        assert_eq!(effects(&state).is_empty(), state.is_final(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_under_any_history(picks in proptest::collection::vec(0..22_usize, 1..50), local: bool) {
        let events = events();
        prop_assert_eq!(events.len(), 22);
        let mut state = if local { fresh() } else { remote() };
        for pick in picks {
            let Ok(Some(after)) = apply(&state, &events[pick].1) else { continue };
            prop_assert!(!state.is_final(), "final is final");
            let settling = matches!(after.phase, InvoicePhase::Settling { .. });
            if settling {
                let held = matches!(state.phase, InvoicePhase::Accepted(_) | InvoicePhase::Committed { .. });
                prop_assert!(held, "only a hold is settled");
            }
            if matches!(after.phase, InvoicePhase::Canceling(_)) {
                prop_assert!(!matches!(state.phase, InvoicePhase::Settling { .. }), "no cancel after a settle order");
            }
            if matches!(after.phase, InvoicePhase::Committed { .. }) {
                prop_assert!(matches!(state.phase, InvoicePhase::Accepted(_)), "only a hold is committed");
                prop_assert_eq!(deadline(&after).is_none(), local, "a remote owner may vanish");
            }
            if state.is_done() {
                prop_assert!(after.is_done() && state.funds() == Some(Funds::Pending), "only funds change after the end");
                prop_assert!(after.is_final(), "what became of the money is told once");
            }
            let json = serde_json::to_string(&after).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Invoice>(&json).unwrap(), &after);
            state = after;
        }
    }
}

/// Do not edit the JSON: data directories in the field hold these states and events.
#[test]
fn what_was_written_before_settlements_were_followed_folds_as_it_did() {
    let settling: InvoicePhase = serde_json::from_str(&format!(
        r#"{{"settling":{{"preimage":"{}","hold":{{"paid":60000,"lowest_expiry_height":180,"since":1500}}}}}}"#,
        "09".repeat(32)
    ))
    .unwrap();
    let settling = Invoice {
        phase: settling,
        ..fresh()
    };
    let event: InvoiceEvent = serde_json::from_str(r#"{"type":"settled_at_lnd","paid":60000,"at":1700}"#).unwrap();
    let settled = apply(&settling, &event).unwrap().unwrap();
    assert!(settled.is_final());
    assert_eq!(settled.funds(), Some(Funds::NotFollowed));
    let old = r#"{"settled":{"paid":60000,"at":1700}}"#;
    assert_eq!(serde_json::to_string(&settled.phase).unwrap(), old);
    assert_eq!(serde_json::from_str::<InvoicePhase>(old).unwrap(), settled.phase);
    let late = apply(&settled, &funds(Funds::Final)).unwrap();
    assert_eq!(late, None, "nobody asks for it, and nothing is made of it");
    let order: InvoiceEvent = serde_json::from_str(&format!(
        r#"{{"type":"settle_ordered","preimage":"{}"}}"#,
        "09".repeat(32)
    ))
    .unwrap();
    assert!(matches!(order, InvoiceEvent::SettleOrdered { at: None, .. }));
}
