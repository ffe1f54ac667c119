//! AddHoldInvoice, cancel and settle per second at 1, 16 and 64 callers: bare, and through tellerd.

use std::ops::Range;
use std::time::Instant;

use tellerd::ids::{PaymentHash, Preimage};
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::{self};

use crate::bare::Bare;
use crate::rig::{Net, until};
use crate::through::Through;

/// Of each invoice: thousands of them have to pass one channel.
pub const VALUE_SATS: u64 = 500;
const CALLERS: [usize; 3] = [1, 16, 64];

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Add,
    Cancel,
    Settle,
}

/// Different ones for each `n`.
pub fn preimages(range: Range<usize>) -> Vec<Preimage> {
    let one = |n: usize| {
        let mut bytes = [9; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Preimage::from_bytes(bytes)
    };
    range.map(one).collect()
}

pub async fn run(net: &Net, count: usize, rounds: usize) {
    let (bare, through) = (Bare::connect(net).await, Through::start(net));
    println!(
        "\nCalls per second at one lnd, median of {rounds} rounds of {count}; through tellerd: request in to reply out"
    );
    println!("| call | callers | bare | through tellerd | ratio |");
    println!("|---|---|---|---|---|");
    let mut next = 0;
    for callers in CALLERS {
        let mut rows: Vec<Vec<(f64, f64)>> = vec![Vec::new(); 3];
        for _ in 0..rounds {
            let kept = (preimages(next..next + count), preimages(next + count..next + 2 * count));
            next += 2 * count;
            let added = pair(&bare, &through, Op::Add, &kept, callers).await;
            rows[0].push(added.rates);
            pay(net, &added.invoices).await;
            rows[2].push(pair(&bare, &through, Op::Settle, &kept, callers).await.rates);
            let dropped = (preimages(next..next + count), preimages(next + count..next + 2 * count));
            next += 2 * count;
            pair(&bare, &through, Op::Add, &dropped, callers).await;
            rows[1].push(pair(&bare, &through, Op::Cancel, &dropped, callers).await.rates);
        }
        for (op, mut rates) in [Op::Add, Op::Cancel, Op::Settle].into_iter().zip(rows) {
            rates.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
            let (alone, with) = rates[rates.len() / 2];
            println!("| {op:?} | {callers} | {alone:.0} | {with:.0} | {:.2} |", with / alone);
        }
    }
}

struct Pair {
    rates: (f64, f64),
    invoices: Vec<String>,
}

/// The same number of calls in both ways, one way after the other.
async fn pair(bare: &Bare, through: &Through, op: Op, of: &(Vec<Preimage>, Vec<Preimage>), callers: usize) -> Pair {
    let requests = through.requests(op, &of.1);
    let begun = Instant::now();
    let mut invoices = bare.all(op, &of.0, callers).await;
    let alone = of.0.len() as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    invoices.extend(through.all(requests, callers).await);
    let with = of.1.len() as f64 / begun.elapsed().as_secs_f64();
    Pair {
        rates: (alone, with),
        invoices,
    }
}

/// The customer pays all; returns once they are held.
async fn pay(net: &Net, invoices: &[String]) {
    for some in invoices.chunks(64) {
        for invoice in some {
            drop(net.pay(invoice, None).await);
        }
        for invoice in some {
            let hash = PaymentHash(crate::rig::payer::Bill::read(invoice).hash);
            until("the payment is held", async || is_held(net, hash).await).await;
        }
    }
}

async fn is_held(net: &Net, hash: PaymentHash) -> bool {
    let mut client = net.merchant.lightning().await.unwrap();
    let asked = lnrpc::PaymentHash {
        r_hash: hash.0.to_vec(),
    };
    let seen = client.lookup_invoice(asked).await.unwrap().into_inner();
    seen.state() == InvoiceState::Accepted
}
