//! The exploration: every state that one machine with its customers can come into, breadth first.
//!
//! Called by the tests. A state of the world is the class of each customer's item and a count of crashes. Must stay true: a
//! trace that is told is a shortest one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::broken::Broken;
use super::graph::{Graph, Step, number};
use super::model::{Model, Who};
use super::rules::{Notes, note_fault};

/// What is explored of a model.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub customers: u8,
    pub crashes: u8,
}

/// What was found.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub transitions: u64,
    pub depth: usize,
    /// Values of one item, and classes of them.
    pub values: usize,
    pub classes: usize,
    /// States of the real machines that came up.
    pub cashouts: usize,
    pub invoices: usize,
    /// Where the two customers' cash-outs stand at once; "" before a promise.
    pub pairs: BTreeSet<[&'static str; 2]>,
    pub took: Duration,
    pub violation: Option<Violation>,
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} states, {} steps, depth {}; an item has {} values in {} classes, with {} states of a cash-out and {} of an \
             invoice; {:.1?}",
            self.states,
            self.transitions,
            self.depth,
            self.values,
            self.classes,
            self.cashouts,
            self.invoices,
            self.took
        )
    }
}

/// A rule that is broken, and the shortest way there.
#[derive(Debug)]
pub struct Violation {
    pub rule: String,
    pub steps: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} (after {} steps)", self.rule, self.steps.len())?;
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number:3}. {step}")?;
        }
        Ok(())
    }
}

/// One state: an item's class for each customer, and the crashes so far.
#[derive(Clone, Copy, PartialEq, Eq)]
struct World {
    items: [u32; 2],
    crashes: u8,
}

/// The states in the order of their coming. Whatever can happen after two crashes can happen in the same place after one:
/// a state with more crashes than one that was there before is not followed. Open addressing, because it is most of the work.
struct States {
    all: Vec<World>,
    slots: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl States {
    fn new() -> Self {
        Self {
            all: Vec::new(),
            slots: vec![FREE; 1 << 16],
        }
    }

    /// The place of a state, or where it belongs, by its items alone.
    fn slot(&self, items: [u32; 2]) -> usize {
        let mask = self.slots.len() - 1;
        let key = u64::from(items[0]) << 32 | u64::from(items[1]);
        let mut slot = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
        while self.slots[slot] != FREE && self.all[self.slots[slot] as usize].items != items {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Adds a state; `false` when nothing new can come of it.
    fn add(&mut self, world: World) -> bool {
        let slot = self.slot(world.items);
        let known = self.slots[slot];
        if known != FREE && self.all[known as usize].crashes <= world.crashes {
            return false;
        }
        self.slots[slot] = number(self.all.len());
        self.all.push(world);
        if self.all.len() * 2 > self.slots.len() {
            self.slots = vec![FREE; self.slots.len() * 2];
            // In order: of two with the same items the later one has fewer crashes.
            for at in 0..self.all.len() {
                let slot = self.slot(self.all[at].items);
                self.slots[slot] = number(at);
            }
        }
        true
    }
}

/// How one state follows from another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// A step of a customer's item, by its place in the class.
    Item(usize, usize),
    Crash(usize),
}

pub struct Explorer {
    graph: Graph,
    bounds: Bounds,
    /// Crashes of the daemon alone, or of the ATM's actor too.
    kinds: usize,
    /// Only when broken on purpose.
    promises_while_busy: bool,
    states: States,
    parents: Vec<u32>,
    transitions: u64,
}

/// Explores everything, or up to the first violation.
pub fn explore(mut model: Model, bounds: Bounds) -> Explored {
    let begun = Instant::now();
    let graph = Graph::of(&mut model);
    let notes = note_faults(&model, &graph);
    let kinds = if model.config.actors_die { 2 } else { 1 };
    let mut explorer = Explorer {
        graph,
        bounds,
        kinds,
        promises_while_busy: model.is_broken(Broken::PromiseWhileBusy),
        states: States::new(),
        parents: Vec::new(),
        transitions: 0,
    };
    let (depth, unsafe_way) = explorer.breadth_first();
    let no_way = |rule| Violation {
        rule,
        steps: Vec::new(),
    };
    let violation = unsafe_way.or(notes.map(no_way)).or_else(|| explorer.liveness());
    Explored {
        states: explorer.states.all.len(),
        transitions: explorer.transitions,
        depth,
        values: explorer.graph.nodes.len(),
        classes: explorer.graph.classes.len(),
        cashouts: model.cashouts.len(),
        invoices: model.invoices.len(),
        pairs: explorer.pairs(),
        took: begun.elapsed(),
        violation,
    }
}

impl Explorer {
    fn breadth_first(&mut self) -> (usize, Option<Violation>) {
        let nobody = self.graph.class_of[0];
        let start = World {
            items: [nobody; 2],
            crashes: 0,
        };
        self.states.add(start);
        self.parents.push(FREE);
        let (mut next, mut depth, mut layer) = (0, 0, 1);
        while next < self.states.all.len() {
            if next == layer {
                depth += 1;
                layer = self.states.all.len();
            }
            if let Some(violation) = self.expand(next) {
                return (depth, Some(violation));
            }
            next += 1;
        }
        (depth, None)
    }

    /// Every state that follows from `world`, with how, until `each` has enough.
    fn successors(&self, world: World, mut each: impl FnMut(World, By, Who, Option<&String>) -> bool) {
        let classes = &self.graph.classes;
        let first = &classes[world.items[0] as usize];
        for customer in 0..usize::from(self.bounds.customers) {
            let class = &classes[world.items[customer] as usize];
            // One customer at a time: the next is promised notes when the one before does not need the machine any more.
            let free = first.looks.begun && (!first.looks.occupies || self.promises_while_busy);
            if customer == 1 && !class.looks.begun && !free {
                continue;
            }
            for (place, (who, to, fault)) in class.steps.iter().enumerate() {
                let mut next = world;
                next.items[customer] = *to;
                next.crashes += u8::from(*who == Who::Death);
                if next.crashes <= self.bounds.crashes && !each(next, By::Item(customer, place), *who, fault.as_ref()) {
                    return;
                }
            }
        }
        if world.crashes == self.bounds.crashes {
            return;
        }
        for kind in 0..self.kinds {
            let next = World {
                items: world.items.map(|item| classes[item as usize].crashed[kind]),
                crashes: world.crashes + 1,
            };
            // A crash that changes nothing only spends one.
            if next.items != world.items && !each(next, By::Crash(kind), Who::Death, None) {
                return;
            }
        }
    }

    /// Adds what follows from a state, and judges it.
    fn expand(&mut self, at: usize) -> Option<Violation> {
        let world = self.states.all[at];
        let mut found = Vec::new();
        let mut wrong = None;
        self.successors(world, |next, by, _, fault| {
            found.push((next, by));
            wrong = fault.map(|rule| (rule.clone(), by));
            wrong.is_none()
        });
        if let Some((rule, by)) = wrong {
            return Some(self.told(rule, at, Some(by)));
        }
        self.transitions += found.len() as u64;
        for (next, by) in found {
            if !self.states.add(next) {
                continue;
            }
            self.parents.push(number(at));
            if let Some(rule) = self.judge(next) {
                return Some(self.told(rule, at, Some(by)));
            }
        }
        None
    }

    fn pairs(&self) -> BTreeSet<[&'static str; 2]> {
        // A class has one phase, and few have the same: each pair of phases is looked at once.
        let names: Vec<&'static str> = self.graph.classes.iter().map(|class| class.looks.phase).collect();
        let phases: Vec<&'static str> = names.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let place = |name: &&'static str| phases.iter().position(|phase| phase == name).unwrap_or(0);
        let places: Vec<usize> = names.iter().map(place).collect();
        let mut seen = vec![false; phases.len() * phases.len()];
        for world in &self.states.all {
            let [first, second] = world.items.map(|item| places[item as usize]);
            seen[first * phases.len() + second] = true;
        }
        let seen = (0..seen.len()).filter(|at| seen[*at]);
        seen.map(|at| [phases[at / phases.len()], phases[at % phases.len()]])
            .collect()
    }

    fn judge(&self, world: World) -> Option<String> {
        let [first, second] = world.items.map(|item| &self.graph.classes[item as usize].looks);
        if let Some(fault) = first.fault.as_ref().or(second.fault.as_ref()) {
            return Some(fault.clone());
        }
        if first.occupies && second.occupies {
            return Some("one customer at a time: two have the machine".into());
        }
        (!first.idle && second.begun)
            .then(|| "one customer at a time: the dispenser still moves for the one before".into())
    }

    /// The way to a state, and one step further.
    fn told(&self, rule: String, at: usize, last: Option<By>) -> Violation {
        let mut ways: Vec<(World, By)> = last.map(|by| (self.states.all[at], by)).into_iter().collect();
        let mut at = at;
        while self.parents[at] != FREE {
            let to = self.states.all[at];
            at = self.parents[at] as usize;
            let from = self.states.all[at];
            self.successors(from, |next, by, _, _| {
                if next == to {
                    ways.push((from, by));
                }
                next != to
            });
        }
        ways.reverse();
        Violation {
            rule,
            steps: self.in_words(&ways),
        }
    }

    /// Walks the same way with values instead of classes: each member of a class has every step of it.
    fn in_words(&self, ways: &[(World, By)]) -> Vec<String> {
        let graph = &self.graph;
        let mut items = [0_u32; 2];
        let mut words = Vec::new();
        for (world, by) in ways {
            match by {
                By::Crash(kind) => {
                    items = items.map(|item| graph.nodes[item as usize].crashed[*kind]);
                    let what = [
                        "the daemon is killed and started again",
                        "the ATM's actor dies and comes back",
                    ];
                    words.push(what[*kind].to_owned());
                }
                By::Item(customer, place) => {
                    let class = &graph.classes[world.items[*customer] as usize];
                    let (who, to, fault) = &class.steps[*place];
                    let node = &graph.nodes[items[*customer] as usize];
                    let same = |step: &&Step| {
                        step.who == *who && graph.class_of[step.to as usize] == *to && step.fault == *fault
                    };
                    let step = node.steps.iter().find(same).unwrap();
                    items[*customer] = step.to;
                    words.push(format!("{} customer: {}", ["first", "second"][*customer], step.what));
                }
            }
        }
        words
    }

    /// From every state, with tellerd and the world alone, everybody comes to an end or waits for an operator by name; with
    /// an operator everybody comes to an end. For neither is a notice needed that could be lost, or a customer, or a crash,
    /// or an LND that ends something by itself. None of these steps depends on the other customer's item: a state leads
    /// there when each of its items does.
    fn liveness(&self) -> Option<Violation> {
        let alone = |who| matches!(who, Who::Teller | Who::World);
        let helped = |who| alone(who) || who == Who::Operator;
        let named = self.graph.reaches(&alone, &|looks| looks.at_end || looks.named);
        let ended = self.graph.reaches(&helped, &|looks| looks.at_end);
        let rules = [
            (
                named,
                "liveness: nothing leads from here to an end, or to an operator by name",
            ),
            (ended, "liveness: no operator leads from here to an end"),
        ];
        rules.into_iter().find_map(|(reaches, rule)| {
            let is_stuck = |world: &World| world.items.iter().any(|item| !reaches[*item as usize]);
            let at = self.states.all.iter().position(is_stuck)?;
            Some(self.told(rule.into(), at, None))
        })
    }
}

/// The machine's books with the notes of every two items in them: also for pairs that never are.
fn note_faults(model: &Model, graph: &Graph) -> Option<String> {
    let mut kinds: Vec<Notes> = Vec::new();
    for node in &graph.nodes {
        let notes = model.notes(&node.item);
        if !kinds.contains(&notes) {
            kinds.push(notes);
        }
    }
    let pairs = kinds.iter().flat_map(|one| kinds.iter().map(move |other| [one, other]));
    pairs
        .filter(|[one, other]| one.promised == [0; 2] || other.promised == [0; 2])
        .find_map(|pair| note_fault(&pair))
}
