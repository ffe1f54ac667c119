//! The table of section 3 of the fact sheet on LND, row by row, and random sequences of calls.

mod calls;
mod payments;
mod random;

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
