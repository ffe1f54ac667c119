//! A journal with a long past: the records of one real cash-out, as many times as wanted, each with an id, a hash, a
//! preimage and a machine of its own, written through the journal's own writer. They fold as any others do.
//!
//! What they share is the text of the invoice, which nothing reads.

use std::collections::VecDeque;
use std::path::Path;

use tellerd::cashout::Event;
use tellerd::ids::{CashOutId, PaymentHash, Preimage};
use tellerd::invoice::InvoiceEvent;
use tellerd::journal::{DirLock, Journal, OpenError, Options, Reader};
use tellerd::record::{Body, Record, VERSION};
use tellerd::time::UnixMs;

use crate::daemon::{beside, final_end, promised, text};
use crate::machines::{Machines, name};
use crate::node::Node;

/// Cash-outs in one append.
const TOGETHER: usize = 256;
/// Appends on their way.
const AHEAD: usize = 8;
/// When the first of them was made.
const BEGIN: u64 = 1_700_000_000_000;

/// What differs between copies.
#[derive(Clone, Copy)]
enum Own {
    Id,
    Hash,
    Preimage,
    Machine,
}

/// A part of a record's text.
enum Piece {
    Same(String),
    Own(Own),
}

/// The records of one cash-out, cut where copies differ.
pub struct Template {
    node: Vec<u8>,
    machine: Vec<Vec<Piece>>,
    cashout: Vec<Vec<Piece>>,
    /// So many of its records lead to an invoice that waits for its payment.
    open: usize,
    /// What the customer pays.
    pub price_msat: u64,
}

/// The preimage of cash-out `index`.
pub fn preimage(index: usize) -> Preimage {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    Preimage::from_bytes(bytes)
}

impl Template {
    /// From a cash-out at this node.
    pub fn make(node: &Node) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machines = Machines::in_memory(1);
        let config = text(&node.section(node.address), dir.path(), 1);
        let lnd = node.lnd.clone();
        beside(dir.path(), &config, &machines.lines, async move |daemon| {
            let mut changes = daemon.fleet.follow();
            let cashout = promised(&daemon.fleet, &name(0)).await;
            let invoice = cashout.payment_request.as_deref().unwrap();
            lnd.pay(invoice, &tellerd::sim::lnd::PayOptions::default()).unwrap();
            final_end(&mut changes, cashout.id).await;
        });
        Self::read(&dir.path().join("data"))
    }

    fn read(data: &Path) -> Self {
        let records: Vec<(String, Body)> = Reader::open(data)
            .unwrap()
            .map(|record| {
                let record = record.unwrap();
                let body = Record::decode(record.version, &record.payload).unwrap().body;
                (String::from_utf8(record.payload).unwrap(), body)
            })
            .collect();
        let quoted = records.iter().find_map(|(_, body)| match body {
            Body::CashOut {
                id,
                event: Event::Quoted { quote },
            } => Some((*id, quote.clone())),
            _ => None,
        });
        let (id, quote) = quoted.unwrap();
        let parts = [
            (id.to_string(), Own::Id),
            (quote.hash.to_string(), Own::Hash),
            (hex::encode(quote.preimage.expose()), Own::Preimage),
            (quote.atm.to_string(), Own::Machine),
        ];
        let (mut machine, mut cashout, mut node, mut open) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (text, body) in records {
            match body {
                Body::Node { .. } => node = text.into_bytes(),
                Body::Atm { .. } => machine.push(cut(text, &parts)),
                Body::CashOut { event, .. } => {
                    cashout.push(cut(text, &parts));
                    if let Event::InvoiceOpened { .. } = event {
                        open = cashout.len();
                    }
                }
                Body::Invoice { event, .. } => {
                    assert!(
                        open == 0 || !matches!(event, InvoiceEvent::Opened { .. }),
                        "in this order"
                    );
                    cashout.push(cut(text, &parts));
                }
                other => panic!("{other:?}"),
            }
        }
        Self {
            node,
            machine,
            cashout,
            open,
            price_msat: quote.price.0,
        }
    }

    /// Records of a finished one, and their bytes in the journal.
    pub fn size(&self) -> (usize, usize) {
        let copy = self.copies(&self.cashout, 0, 0);
        let bytes = copy.iter().map(|(_, payload)| payload.len() + crate::disk::AROUND);
        (copy.len(), bytes.sum())
    }

    fn copies(&self, records: &[Vec<Piece>], index: usize, machine: usize) -> Vec<(u8, Vec<u8>)> {
        let preimage = preimage(index);
        let hash: PaymentHash = preimage.hash();
        let (secret, hash) = (hex::encode(preimage.expose()), hash.to_string());
        let id = CashOutId::new(UnixMs(BEGIN + index as u64), 7);
        let machine = name(machine);
        let copy = |pieces: &Vec<Piece>| {
            let texts = pieces.iter().map(|piece| match piece {
                Piece::Same(text) => text.as_str(),
                Piece::Own(Own::Id) => id.as_str(),
                Piece::Own(Own::Hash) => &hash,
                Piece::Own(Own::Preimage) => &secret,
                Piece::Own(Own::Machine) => machine.as_str(),
            });
            (VERSION, texts.collect::<String>().into_bytes())
        };
        records.iter().map(copy).collect()
    }

    /// Writes the journal in `data`: `finished` cash-outs, then an open one at each of `open` machines, which are the
    /// first ones: their preimages are those of 0 and on.
    pub fn write(&self, data: &Path, open: usize, finished: usize) {
        let lock = DirLock::take(data).unwrap();
        let journal = Journal::open(&lock, None, |_| Ok::<(), OpenError>(())).unwrap();
        let (appender, thread) = journal.start(Options::default(), Box::new(|_| {})).unwrap();
        let machines = (0..open).flat_map(|machine| self.copies(&self.machine, 0, machine));
        let past = (open..open + finished).map(|index| self.copies(&self.cashout, index, index % open));
        let waiting = (0..open).map(|index| self.copies(&self.cashout[..self.open], index, index));
        let mut cashouts = past.chain(waiting);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            appender.append(VERSION, self.node.clone()).await.unwrap();
            appender.append_all(machines.collect()).await.unwrap();
            let mut on_their_way = VecDeque::new();
            loop {
                let batch: Vec<(u8, Vec<u8>)> = cashouts.by_ref().take(TOGETHER).flatten().collect();
                if batch.is_empty() {
                    break;
                }
                let appender = appender.clone();
                on_their_way.push_back(tokio::spawn(async move { appender.append_all(batch).await.unwrap() }));
                if on_their_way.len() > AHEAD {
                    on_their_way.pop_front().unwrap().await.unwrap();
                }
            }
            for append in on_their_way {
                append.await.unwrap();
            }
        });
        drop(appender);
        assert!(thread.join());
    }
}

fn cut(text: String, parts: &[(String, Own)]) -> Vec<Piece> {
    let mut pieces = vec![Piece::Same(text)];
    for (of_it, own) in parts {
        let cut = |whole: Piece| match whole {
            Piece::Same(text) => {
                let mut pieces = Vec::new();
                for (place, between) in text.split(of_it.as_str()).enumerate() {
                    if place > 0 {
                        pieces.push(Piece::Own(*own));
                    }
                    pieces.push(Piece::Same(between.to_owned()));
                }
                pieces
            }
            own => vec![own],
        };
        pieces = pieces.into_iter().flat_map(cut).collect();
    }
    pieces
}
