//! The model: the two real machines, their words, and what both know of each other.
//!
//! The carriers' part is in `steps.rs` (cash-out), `invoice_steps.rs` and `world_steps.rs` (everything that is not tellerd);
//! what must be true in `rules.rs`. Must stay true: every decision is the product's own (`apply`, `effects`, `deadline`,
//! `seen::events`, `mix`); the model only says what may happen when.

use serde::Serialize;
use tellerd::actors::item::Machine;
use tellerd::cashout::ledger::{Cassette, NoteLedger};
use tellerd::cashout::mix::mix;
use tellerd::cashout::{self, CashOut, PartialPolicy, Phase, Policy, Quote, UnknownPolicy};
use tellerd::hardware::{CassetteReport, DispenseIntent, DispenseOrder, DispenseReport, Fault, Marker, Outcome};
use tellerd::ids::{CashOutId, Preimage};
use tellerd::invoice::{CancelReason, Invoice, InvoicePhase, InvoiceSpec, Owner};
use tellerd::money::{Minor, Msat, Rate};
use tellerd::time::UnixMs;

use super::broken::Broken;
use super::item::{Command, EXPIRY_HEIGHT, Item, Lnd, Motion, Prepare, Window};
use super::table::{Id, Table, Told};

/// All times are one, and every deadline is past at the other: a deadline may pass at any moment.
pub const AT: UnixMs = UnixMs(1_000);
pub const LATE: UnixMs = UnixMs(1_000_000);
pub const PAID: Msat = Msat(40_000_000);
pub const AMOUNT: Minor = Minor(4_000);
/// Notes of each cassette at the start.
pub const LOADED: u32 = 20;
pub const DENOMINATIONS: [u64; 2] = [2_000, 1_000];
/// The reason of the product for what was decided without knowing.
pub const DECIDED: &str = "outcome unknown at the deadline";

/// What is explored.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub partial: PartialPolicy,
    pub unknown: UnknownPolicy,
    /// The node stores what becomes of its HTLCs.
    pub follow: bool,
    /// Events may wait behind the one that is being written down, and notices may come late.
    pub late: bool,
    /// Actors die alone too.
    pub actors_die: bool,
    pub broken: Option<Broken>,
}

/// Who makes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Teller,
    /// A message from the invoice's actor that nobody would repeat.
    Notice,
    /// LND answers, the dispenser moves, time passes.
    World,
    /// LND ends a hold or an invoice by itself, or another hand does.
    Chance,
    Customer,
    Operator,
    /// The disk refuses a record.
    Disk,
    /// An actor dies alone: counts as a crash.
    Death,
}

/// One step of one item.
#[derive(Debug, Clone)]
pub struct Move {
    pub who: Who,
    pub what: String,
    pub to: Item,
    /// The rule that this step itself breaks.
    pub fault: Option<String>,
}

pub struct Model {
    pub config: Config,
    pub cashouts: Table<CashOut>,
    pub invoices: Table<Invoice>,
    pub promised: Id,
    pub spec: InvoiceSpec,
}

fn canonical_cashout(mut cashout: CashOut) -> CashOut {
    // Words that nothing depends on; but what was decided without knowing has to be told apart by the rules.
    match &mut cashout.phase {
        Phase::Canceling { reason } | Phase::Canceled { reason } if reason != DECIDED => reason.clear(),
        Phase::OutcomeUnknown { reason, .. } => reason.clear(),
        Phase::NeedsOperator { why } => why.clear(),
        _ => {}
    }
    if !cashout.occupies_atm() {
        // Read only while an order is possible.
        cashout.orders = 0;
        cashout.excluded.clear();
        cashout.hold_lost = false;
    }
    cashout.notes = summed(&cashout.notes);
    cashout
}

fn summed(notes: &[CassetteReport]) -> Vec<CassetteReport> {
    let mut sums: Vec<CassetteReport> = Vec::new();
    for report in notes {
        match sums.iter_mut().find(|sum| sum.position == report.position) {
            Some(sum) => {
                sum.requested = 0;
                sum.delivered += report.delivered;
                sum.rejected += report.rejected;
                sum.unaccounted += report.unaccounted;
            }
            None => sums.push(CassetteReport {
                requested: 0,
                ..*report
            }),
        }
    }
    sums.retain(|sum| sum.delivered + sum.rejected + sum.unaccounted > 0);
    sums.sort_by_key(|sum| sum.position);
    sums
}

fn canonical_invoice(mut invoice: Invoice) -> Invoice {
    match &mut invoice.phase {
        InvoicePhase::Canceling(reason) | InvoicePhase::Canceled(reason) => *reason = CancelReason::ByLnd,
        _ => {}
    }
    invoice
}

fn quote(config: &Config, order: DispenseOrder) -> Quote {
    let preimage = Preimage::from_bytes([7; 32]);
    let currency = "EUR".parse().unwrap();
    Quote {
        atm: "lobby".parse().unwrap(),
        amount: AMOUNT,
        fee: Minor::ZERO,
        currency,
        rate: Rate {
            minor_per_btc: 10_000_000,
            currency,
        },
        price: PAID,
        mix: order,
        hash: preimage.hash(),
        preimage,
        at: AT,
        pay_by: UnixMs(2_000),
        policy: Policy {
            partial: config.partial,
            unknown_at_deadline: config.unknown,
            hold_ms: 1_000,
            unknown_ms: 5_000,
            min_blocks_left: 12,
            force_blocks_left: 6,
            hold_expiry_delta: 18,
            cltv_expiry: 80,
            max_orders: 2,
        },
    }
}

/// As the ATM's actor makes it.
fn spec(cashout: &CashOut) -> InvoiceSpec {
    let quote = &cashout.quote;
    InvoiceSpec {
        hash: quote.hash,
        owner: Owner::Atm {
            atm: quote.atm.clone(),
            cashout: cashout.id,
        },
        amount: quote.price,
        memo: String::new(),
        pay_by: quote.pay_by,
        hold_ms: quote.policy.hold_ms,
        cltv_expiry: quote.policy.cltv_expiry,
        hold_expiry_delta: quote.policy.hold_expiry_delta,
        min_blocks_left: quote.policy.min_blocks_left,
        private_route_hints: false,
    }
}

/// The machine's notes as they were loaded.
pub fn loaded() -> NoteLedger {
    let mut ledger = NoteLedger::default();
    for (position, denomination) in (1..).zip(DENOMINATIONS) {
        ledger.load(Cassette::loaded(position, Minor(denomination), LOADED));
    }
    ledger
}

impl Model {
    pub fn new(config: Config) -> Self {
        let stock = loaded().available([]);
        let order = mix(AMOUNT, &stock, 20).unwrap();
        let promised = CashOut::quoted(CashOutId::new(AT, 1), quote(&config, order));
        let twist = config.broken.and_then(Broken::cashout_twist);
        let mut cashouts = Table::new(canonical_cashout, twist);
        Self {
            config,
            spec: spec(&promised),
            promised: cashouts.id(promised),
            cashouts,
            invoices: Table::new(canonical_invoice, None),
        }
    }

    pub fn is_broken(&self, how: Broken) -> bool {
        self.config.broken == Some(how)
    }

    pub fn cashout(&self, item: &Item) -> Option<&CashOut> {
        self.cashouts.get(item.cashout.state)
    }

    pub fn invoice(&self, item: &Item) -> Option<&Invoice> {
        self.invoices.get(item.invoice.state)
    }

    /// The cash-out with the event that is being written down, as if it were durable.
    pub fn ahead(&mut self, item: &Item) -> Option<CashOut> {
        match item.cashout.writes {
            0 => None,
            _ => {
                let (half, _) = self.cashouts.adopt(item.cashout);
                self.cashouts.get(half.state).cloned()
            }
        }
    }

    /// Offers an event to the cash-out; `None` when it has to wait and can not.
    pub fn tell_cashout(&mut self, item: &Item, event: cashout::Event) -> Option<(Item, Told)> {
        let event = self.cashouts.event(event);
        if item.cashout.writes != 0 && !self.config.late {
            return None;
        }
        let (cashout, told) = self.cashouts.offer(item.cashout, event)?;
        Some((Item { cashout, ..*item }, told))
    }

    /// The same for the invoice.
    pub fn tell_invoice(&mut self, item: &Item, event: tellerd::invoice::InvoiceEvent) -> Option<(Item, Told)> {
        let event = self.invoices.event(event);
        if item.invoice.writes != 0 && !self.config.late {
            return None;
        }
        let (invoice, told) = self.invoices.offer(item.invoice, event)?;
        Some((Item { invoice, ..*item }, told))
    }

    /// Blocks before LND cancels.
    pub fn blocks_left(&self, window: Window) -> i64 {
        i64::from(EXPIRY_HEIGHT) - i64::from(self.spec.hold_expiry_delta) - i64::from(window.height())
    }

    /// As the ATM's actor: the notes promised at first, another mix after that. The notes of the other customer are left
    /// out: more are loaded than both can take.
    pub fn next_order(&self, cashout: &CashOut) -> Option<DispenseOrder> {
        if cashout.orders == 0 {
            return Some(cashout.quote.mix.clone());
        }
        let mut stock = loaded().available([]);
        stock.retain(|stock| !cashout.excluded.contains(&stock.position));
        mix(cashout.quote.amount, &stock, 20)
    }

    /// Forgets what nothing depends on any more, as the actors do; and what can not be told apart.
    pub fn tidied(&self, mut item: Item) -> Item {
        let Some(cashout) = self.cashout(&item) else {
            return item;
        };
        let (held, dispensing) = (
            matches!(cashout.phase, Phase::Held { .. }),
            matches!(cashout.phase, Phase::Dispensing { .. }),
        );
        let unknown = matches!(cashout.phase, Phase::OutcomeUnknown { .. });
        let waits = matches!(cashout.phase, Phase::Quoted | Phase::AwaitingPayment);
        if !held {
            item.prepare = match item.prepare {
                Prepare::Reading | Prepare::Orphan => Prepare::Orphan,
                _ => Prepare::Idle,
            };
        }
        let accepted = self
            .invoice(&item)
            .is_some_and(|i| matches!(i.phase, InvoicePhase::Accepted(_)));
        if item.prepare == Prepare::Orphan && !accepted {
            item.prepare = Prepare::Idle;
        }
        if !dispensing {
            item.command = match item.command {
                Command::Over => Command::Idle,
                command => command,
            };
        }
        let checked = item.prepare != Prepare::Idle || matches!(item.command, Command::Handed | Command::HandedAlone);
        let committing = held && !item.cashout.is_quiet();
        item.fresh &= checked || committing || (dispensing && item.command == Command::Idle);
        if !(waits || held || dispensing) {
            item.notice = 0;
        }
        if matches!(item.lnd, Lnd::None | Lnd::Open) || (item.lnd.is_final() && !(held || dispensing || unknown)) {
            item.window = Window::Plenty;
        }
        item.wire.add &= item.lnd == Lnd::None;
        item.wire.settle &= !item.lnd.is_final();
        item.wire.cancel &= !item.lnd.is_final();
        // The ATM's actor forgets it, with whatever waits.
        if Machine::is_final(cashout) {
            item.cashout.writes = 0;
            item.cashout.waits = 0;
        }
        item
    }
}

/// Notes of an order by cassette, when `out` of them left.
fn counted(order: &DispenseOrder, out: u8) -> Vec<CassetteReport> {
    let mut left = u32::from(out);
    let report = order.cassettes.iter().map(|c| {
        let delivered = left.min(c.notes);
        left -= delivered;
        CassetteReport {
            position: c.position,
            denomination: c.denomination,
            requested: c.notes,
            delivered,
            rejected: 0,
            unaccounted: 0,
        }
    });
    report.collect()
}

/// A device that counts and tells: `names` the cassette at fault.
pub fn told_truly(order: &DispenseOrder, out: u8, names: bool) -> DispenseReport {
    let fault = Fault {
        code: 1,
        text: "jam".into(),
        position: order.cassettes.first().map(|c| c.position).filter(|_| names),
    };
    let outcome = match u32::from(out) {
        0 => Outcome::NothingMoved { fault },
        all if all == order.notes() => Outcome::Complete,
        _ => Outcome::Partial { fault },
    };
    DispenseReport {
        cassettes: counted(order, out),
        outcome,
    }
}

/// A device that counted `at_least` out and can not tell the rest.
pub fn told_unsurely(order: &DispenseOrder, at_least: u8) -> DispenseReport {
    DispenseReport {
        cassettes: counted(order, at_least),
        ..DispenseReport::unknown(order, "not known")
    }
}

/// An order to be made durable. The counters are kept by the model.
pub fn intent(order: DispenseOrder) -> DispenseIntent {
    DispenseIntent {
        order,
        marker: Marker(serde_json::Value::Null),
    }
}

/// The name of a serialised event, for the trace.
pub fn name_of(event: &impl Serialize) -> String {
    let value = serde_json::to_value(event).unwrap();
    value["type"].as_str().unwrap_or("?").to_owned()
}

/// The order's number, from 0, of the dispense that a cash-out is in.
pub fn order_number(cashout: &CashOut) -> usize {
    usize::try_from(cashout.orders).unwrap().saturating_sub(1).min(1)
}

/// Value of the notes that left, by cassette and in all.
pub fn out(motions: [Motion; 2]) -> ([u32; 2], Minor) {
    let notes = motions.map(|motion| u32::from(motion.notes()));
    let value = notes.iter().zip(DENOMINATIONS).map(|(n, d)| u64::from(*n) * d).sum();
    (notes, Minor(value))
}
