//! One cash-out of five notes, its invoice at the node, and the books that watch both, for the tests of the rules.

use super::super::*;
use crate::cashout::Quote;
use crate::cashout::tests::whole_history;
use crate::hardware::{CassetteOrder, CassetteReport, DispenseIntent, DispenseOrder, DispenseReport, Marker};
use crate::invoice::{InvoiceSpec, Owner};
use crate::lnd::NodeState;
use crate::record::AtmEvent;
use crate::sim::lnd::node::record::PayOrder;
use crate::sim::lnd::node::{AddHold, Node, NodeOptions};

use super::super::super::stream::Streams;

const HEIGHT: u32 = 100;
const START: u64 = 1_000_000;
/// Of the first cassette.
pub const NOTES: u32 = 5;

/// All of it.
pub struct Desk {
    pub books: Books,
    pub side: NodeSide,
    pub now: UnixMs,
    pub quote: Box<Quote>,
    pub id: CashOutId,
}

pub fn order(quote: &Quote) -> DispenseOrder {
    quote.mix.clone()
}

impl Desk {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let Some(Event::Quoted { mut quote }) = whole_history().into_iter().next() else {
            unreachable!()
        };
        quote.mix = DispenseOrder {
            cassettes: vec![CassetteOrder {
                position: 1,
                denomination: DENOMINATIONS[0],
                notes: NOTES,
            }],
        };
        quote.amount = quote.mix.value();
        quote.pay_by = UnixMs(START + 600_000);
        let now = UnixMs(START);
        let side = NodeSide {
            node: Node::new(NodeOptions::default(), HEIGHT),
            state: NodeState::ServerActive,
            away: false,
            unsynced: None,
            told: HEIGHT,
            streams: Streams::default(),
            heights: vec![(UnixMs(0), HEIGHT)],
        };
        let (books, id) = (Books::default(), CashOutId::new(now, 1));
        Self {
            books,
            side,
            now,
            quote,
            id,
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = UnixMs(self.now.0 + ms);
    }

    pub fn record(&self, body: Body) -> Record {
        Record { at: self.now, body }
    }

    pub fn synced(&mut self, body: Body) -> Result<(), Broken> {
        let record = self.record(body);
        self.books.synced(&record, self.now, &self.side)
    }

    pub fn wrote(&mut self, event: Event) -> Result<(), Broken> {
        let id = self.id;
        self.synced(Body::CashOut { id, event })
    }

    pub fn invoice(&mut self, event: InvoiceEvent) -> Result<(), Broken> {
        let hash = self.quote.hash;
        self.synced(Body::Invoice { hash, event })
    }

    pub fn machine(&mut self, what: &What) -> Result<(), Broken> {
        let atm = self.quote.atm.clone();
        self.books.machine(&atm, what, self.now, &self.side)
    }

    pub fn started(&mut self) -> Result<(), Broken> {
        let (dispense, requested, serial) = (1, [5, 0, 0, 0], None);
        self.machine(&What::DispenseStarted {
            dispense,
            requested,
            serial,
        })
    }

    pub fn notes(&mut self, count: u32) -> Result<(), Broken> {
        let (dispense, position) = (1, 1);
        (0..count).try_for_each(|_| self.machine(&What::NoteDelivered { dispense, position }))
    }

    pub fn report(&self, delivered: u32, outcome: Outcome) -> DispenseReport {
        let cassettes = order(&self.quote).cassettes.into_iter().map(|c| CassetteReport {
            position: c.position,
            denomination: c.denomination,
            requested: c.notes,
            delivered,
            rejected: 0,
            unaccounted: 0,
        });
        DispenseReport {
            cassettes: cassettes.collect(),
            outcome,
        }
    }

    pub fn reported(&mut self, delivered: u32, outcome: Outcome) -> Result<(), Broken> {
        let (report, at) = (self.report(delivered, outcome), self.now);
        self.wrote(Event::DispenseReported { report, at })
    }

    pub fn committed(&mut self) -> Result<(), Broken> {
        self.committed_as(order(&self.quote))
    }

    pub fn committed_as(&mut self, order: DispenseOrder) -> Result<(), Broken> {
        self.wrote(Event::DispenseCommitted {
            intent: DispenseIntent {
                order,
                marker: Marker(serde_json::json!({})),
            },
            blocks_left: 50,
            kept_until: None,
            at: self.now,
        })
    }

    /// The promise and the intent are durable, the node has the invoice.
    pub fn opened() -> Self {
        let mut desk = Self::new();
        desk.loaded(1, 10).unwrap();
        desk.loaded(2, 10).unwrap();
        let quote = desk.quote.clone();
        desk.wrote(Event::Quoted { quote }).unwrap();
        desk.requested().unwrap();
        desk.books.adds(&desk.quote.hash).unwrap();
        let add = AddHold {
            hash: desk.quote.hash.0.to_vec(),
            value_msat: i64::try_from(desk.quote.price.0).unwrap(),
            ..AddHold::default()
        };
        let added = desk
            .side
            .node
            .add_hold(&add, [1; 32], desk.now, |_| Ok("ln".to_owned()));
        added.unwrap();
        let payment_request = "ln".to_owned();
        desk.invoice(InvoiceEvent::Opened {
            payment_request: payment_request.clone(),
        })
        .unwrap();
        desk.wrote(Event::InvoiceOpened { payment_request }).unwrap();
        desk
    }

    pub fn loaded(&mut self, position: u8, notes: u32) -> Result<(), Broken> {
        let (id, denomination) = (self.quote.atm.clone(), DENOMINATIONS[usize::from(position) - 1]);
        let event = AtmEvent::CassetteLoaded {
            position,
            denomination,
            notes,
            by: "ada".to_owned(),
        };
        self.synced(Body::Atm { id, event })
    }

    pub fn requested(&mut self) -> Result<(), Broken> {
        let (quote, cashout) = (self.quote.clone(), self.id);
        let spec = InvoiceSpec {
            hash: quote.hash,
            owner: Owner::Atm {
                atm: quote.atm.clone(),
                cashout,
            },
            amount: quote.price,
            memo: String::new(),
            pay_by: quote.pay_by,
            hold_ms: quote.policy.hold_ms,
            cltv_expiry: quote.policy.cltv_expiry,
            hold_expiry_delta: quote.policy.hold_expiry_delta,
            min_blocks_left: quote.policy.min_blocks_left,
            private_route_hints: false,
        };
        self.invoice(InvoiceEvent::Requested { spec })
    }

    /// The customer has paid, which is durable.
    pub fn held() -> Self {
        let mut desk = Self::opened();
        let record = desk.side.node.invoice(&desk.quote.hash).unwrap();
        let order = PayOrder {
            hash: record.hash,
            payment_addr: record.payment_addr.clone(),
            amount_msat: desk.quote.price.0,
            parts: 1,
            missing_parts: 0,
            final_cltv_delta: 83,
            due_at_unix_ms: desk.now,
        };
        desk.side.node.pay(order);
        desk.side.node.tick(desk.now);
        let (paid, at) = (desk.quote.price, desk.now);
        desk.wrote(Event::PaymentHeld { paid, at }).unwrap();
        desk.books.read.insert(desk.quote.hash, desk.now);
        desk
    }

    /// The order is durable.
    pub fn ordered() -> Self {
        let mut desk = Self::held();
        desk.committed().unwrap();
        desk
    }

    /// Notes are out, and the device has said so.
    pub fn out() -> Self {
        let mut desk = Self::ordered();
        desk.started().unwrap();
        desk.notes(NOTES).unwrap();
        desk.reported(NOTES, Outcome::Complete).unwrap();
        desk
    }

    /// The daemon has died over the order, and lives again.
    pub fn interrupted(out: u32) -> Self {
        let mut desk = Self::ordered();
        desk.started().unwrap();
        desk.notes(out).unwrap();
        desk.reborn().unwrap();
        let at = desk.now;
        desk.wrote(Event::Interrupted { at }).unwrap();
        desk
    }

    pub fn reborn(&mut self) -> Result<(), Broken> {
        let (state, records) = (self.books.durable.clone(), self.books.records);
        self.books.read_again(&state, records, self.now, &self.side)
    }

    pub fn mine(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.side.node.mine(self.now);
        }
        self.side.heights.push((self.now, self.side.node.height()));
        self.side.node.tick(self.now);
    }
}
