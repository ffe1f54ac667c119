//! Whether what a real fleet did can happen in the small world: the journal of a test, one cash-out at a time.
//!
//! Called by the audit at the end of each fleet test, with its panics, bad disks and bad nodes, and by the crash test. It
//! keeps the model honest: a record that no way through the graph has at this place is one that its carriers can not make.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tellerd::cashout::{self, CashOut, Event, PartialPolicy, UnknownPolicy};
use tellerd::ids::PaymentHash;
use tellerd::invoice::{self, Invoice, InvoiceEvent, Owner};
use tellerd::record::Body;

use super::graph::Graph;
use super::model::{Config, Model};
use super::{ABSORB, DEFAULT};

/// Steps by what they make durable; `None` for those that make nothing.
struct Ways {
    steps: Vec<Vec<(Option<u16>, u32)>>,
    labels: HashMap<String, u16>,
}

/// The operator's rules, as far as the way of a cash-out depends on them: absorbs, settles what is unknown, follows money.
type Rules = (bool, bool, bool);

static KNOWN: Mutex<BTreeMap<Rules, Arc<Ways>>> = Mutex::new(BTreeMap::new());

fn ways(rules: Rules) -> Arc<Ways> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(known.entry(rules).or_insert_with(|| {
        let (absorbs, settles, follow) = rules;
        let config = Config {
            partial: if absorbs { ABSORB } else { PartialPolicy::Owe },
            unknown: if settles {
                UnknownPolicy::Settle
            } else {
                UnknownPolicy::Cancel
            },
            follow,
            ..DEFAULT
        };
        Arc::new(Ways::of(&mut Model::new(config)))
    }))
}

fn of_cashout(event: &str, after: &CashOut) -> String {
    format!("{event}, cash-out {}", after.phase.name())
}

fn of_invoice(event: &str, after: &Invoice) -> String {
    format!("{event}, invoice {}", after.phase.name())
}

impl Ways {
    fn of(model: &mut Model) -> Self {
        let graph = Graph::of(model);
        let mut labels = HashMap::new();
        let mut steps = Vec::new();
        for node in &graph.nodes {
            let leads = node.steps.iter().map(|step| step.to).chain(node.crashed);
            let mut ways = BTreeSet::new();
            for to in leads {
                let (from, after) = (&node.item, &graph.nodes[to as usize].item);
                // Two records never become durable in one step.
                let label = if from.cashout.state != after.cashout.state {
                    let event = model
                        .cashouts
                        .get_event(from.cashout.writes)
                        .map_or("quoted", Event::name);
                    model.cashout(after).map(|cashout| of_cashout(event, cashout))
                } else if from.invoice.state != after.invoice.state {
                    let event = model
                        .invoices
                        .get_event(from.invoice.writes)
                        .map_or("?", InvoiceEvent::name);
                    model.invoice(after).map(|invoice| of_invoice(event, invoice))
                } else {
                    None
                };
                let fresh = u16::try_from(labels.len()).unwrap();
                ways.insert((label.map(|label| *labels.entry(label).or_insert(fresh)), to));
            }
            steps.push(ways.into_iter().collect());
        }
        Self { steps, labels }
    }

    /// Everywhere that steps lead which make nothing durable.
    fn quietly(&self, from: BTreeSet<u32>) -> BTreeSet<u32> {
        let (mut reached, mut next) = (from.clone(), Vec::from_iter(from));
        while let Some(at) = next.pop() {
            for (label, to) in &self.steps[at as usize] {
                if label.is_none() && reached.insert(*to) {
                    next.push(*to);
                }
            }
        }
        reached
    }

    /// The first record of a history that can not come at its place.
    fn impossible(&self, history: &[String]) -> Option<usize> {
        let mut at = BTreeSet::from([0]);
        history.iter().position(|record| {
            let label = self.labels.get(record);
            let quiet = self.quietly(std::mem::take(&mut at));
            let steps = quiet.iter().flat_map(|at| &self.steps[*at as usize]);
            at = steps
                .filter(|step| label.is_some() && step.0.as_ref() == label)
                .map(|step| step.1)
                .collect();
            at.is_empty()
        })
    }
}

/// The records of one cash-out and its invoice, in the order of the journal.
#[derive(Default)]
struct History {
    cashout: Option<CashOut>,
    invoice: Option<Invoice>,
    follow: bool,
    records: Vec<String>,
}

impl History {
    fn cashout_event(&mut self, cashout: CashOut, event: &Event) {
        let after = match &self.cashout {
            None => Some(cashout),
            Some(before) => cashout::apply(before, event).unwrap(),
        };
        // What is in the journal and changes nothing but words is no step of the model.
        if let Some(after) = after {
            self.records.push(of_cashout(event.name(), &after));
            self.cashout = Some(after);
        }
    }

    fn invoice_event(&mut self, event: &InvoiceEvent) {
        let after = match (&self.invoice, event) {
            (None, InvoiceEvent::Requested { spec }) => Some(Invoice::requested(spec.clone())),
            (None, _) => None,
            (Some(before), _) => invoice::apply(before, event).unwrap(),
        };
        if let InvoiceEvent::SettledAtLnd { follow, .. } = event {
            self.follow = *follow;
        }
        if let Some(after) = after {
            self.records.push(of_invoice(event.name(), &after));
            self.invoice = Some(after);
        }
    }
}

fn histories(journal: &[Body]) -> Vec<History> {
    let mut hashes: HashMap<_, PaymentHash> = HashMap::new();
    let mut found: BTreeMap<PaymentHash, History> = BTreeMap::new();
    for body in journal {
        match body {
            Body::CashOut { id, event } => {
                if let Event::Quoted { quote } = event {
                    hashes.insert(*id, quote.hash);
                    let begun = CashOut::quoted(*id, (**quote).clone());
                    found.entry(quote.hash).or_default().cashout_event(begun, event);
                } else if let Some(history) = hashes.get(id).and_then(|hash| found.get_mut(hash))
                    && let Some(now) = history.cashout.clone()
                {
                    history.cashout_event(now, event);
                }
            }
            Body::Invoice { hash, event } => {
                let remote = |spec: &tellerd::invoice::InvoiceSpec| matches!(spec.owner, Owner::Remote { .. });
                // A client's invoice has no cash-out here.
                if !matches!(event, InvoiceEvent::Requested { spec } if remote(spec))
                    && let Some(history) = found.get_mut(hash)
                {
                    history.invoice_event(event);
                }
            }
            _ => {}
        }
    }
    found.into_values().collect()
}

/// Follows each cash-out of a journal through the graph; returns what can not happen in the small world.
pub fn impossible(journal: &[Body]) -> Vec<String> {
    let strange = |history: History| {
        let cashout = history.cashout?;
        let policy = &cashout.quote.policy;
        let absorbs = policy.partial != PartialPolicy::Owe;
        let settles = policy.unknown_at_deadline == UnknownPolicy::Settle;
        // Of one that was not settled it makes no difference.
        let follow = history.follow || !cashout.books.settled;
        let at = ways((absorbs, settles, follow)).impossible(&history.records)?;
        Some(format!("not in the small world: {:?}", &history.records[..=at]))
    };
    histories(journal).into_iter().filter_map(strange).collect()
}

#[test]
fn an_impossible_history_is_seen() {
    let ways = ways((false, false, true));
    let told = |records: &[&str]| ways.impossible(&records.iter().map(ToString::to_string).collect::<Vec<_>>());
    let begun = [
        "quoted, cash-out quoted",
        "requested, invoice creating",
        "opened, invoice open",
    ];
    assert_eq!(told(&begun), None);
    let early = [begun[0], begun[1], "invoice_opened, cash-out awaiting_payment"];
    assert_eq!(told(&early), Some(2), "before the invoice's own record");
    let unpaid = [begun[0], begun[1], begun[2], "payment_held, cash-out held"];
    assert_eq!(told(&unpaid), Some(3));
}
