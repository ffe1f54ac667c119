//! Every value that one item can take, each step between them, and which values can not be told apart.
//!
//! Called by the exploration. Values whose steps lead to the same places for ever, with the same rules broken on the way,
//! are one class (bisimulation by refinement): two customers then make thousands of pairs and not millions, and none is left
//! out. Must stay true: whatever the exploration looks at is in [`Node::looks`].

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tellerd::cashout::CashOut;

use super::item::Item;
use super::model::{Model, Move, Who};

/// What the exploration sees of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Looks {
    pub fault: Option<String>,
    /// Where the cash-out stands; nobody decides by it.
    pub phase: &'static str,
    pub begun: bool,
    /// It keeps the machine from the next customer.
    pub occupies: bool,
    pub idle: bool,
    pub at_end: bool,
    pub named: bool,
}

#[derive(Debug)]
pub struct Step {
    pub who: Who,
    pub to: u32,
    pub what: String,
    pub fault: Option<String>,
}

pub struct Node {
    pub item: Item,
    pub looks: Looks,
    pub steps: Vec<Step>,
    /// After a crash of the daemon, after one of the ATM's actor.
    pub crashed: [u32; 2],
}

/// One class of values.
pub struct Class {
    pub looks: Looks,
    /// Who steps to which class; and the rule that the step breaks.
    pub steps: Vec<(Who, u32, Option<String>)>,
    pub crashed: [u32; 2],
}

pub struct Graph {
    pub nodes: Vec<Node>,
    pub classes: Vec<Class>,
    /// The class of each node.
    pub class_of: Vec<u32>,
}

pub fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap()
}

impl Graph {
    /// Follows every step and every crash from an item that has not begun.
    pub fn of(model: &mut Model) -> Self {
        let mut found = Found::default();
        found.number(model, Item::default());
        let mut next = 0;
        while let Some(item) = found.nodes.get(next).map(|node| node.item) {
            let mut moves = Vec::new();
            model.cashout_steps(&item, &mut moves);
            model.invoice_steps(&item, &mut moves);
            model.world_steps(&item, &mut moves);
            if model.config.actors_die {
                moves.extend(model.invoice_actor_dies(&item));
            }
            for Move { who, what, to, fault } in moves {
                let to = found.number(model, to);
                if to as usize != next || fault.is_some() {
                    found.nodes[next].steps.push(Step { who, to, what, fault });
                }
            }
            for (kind, whole) in [(0, true), (1, false)] {
                let to = if whole || model.config.actors_die {
                    let to = model.after_death(&item, whole);
                    found.number(model, to)
                } else {
                    number(next)
                };
                found.nodes[next].crashed[kind] = to;
            }
            next += 1;
        }
        let class_of = refined(&found.nodes);
        let classes = classes(&found.nodes, &class_of);
        Self {
            nodes: found.nodes,
            classes,
            class_of,
        }
    }
}

impl Graph {
    /// Which classes lead to a `goal` by steps of those who `may` act.
    pub fn reaches(&self, may: &dyn Fn(Who) -> bool, goal: &dyn Fn(&Looks) -> bool) -> Vec<bool> {
        let mut reaches: Vec<bool> = self.classes.iter().map(|class| goal(&class.looks)).collect();
        loop {
            let leads = |class: &Class| {
                class
                    .steps
                    .iter()
                    .any(|(who, to, _)| may(*who) && reaches[*to as usize])
            };
            let news: Vec<usize> = (0..reaches.len())
                .filter(|at| !reaches[*at] && leads(&self.classes[*at]))
                .collect();
            if news.is_empty() {
                return reaches;
            }
            for at in news {
                reaches[at] = true;
            }
        }
    }
}

#[derive(Default)]
struct Found {
    nodes: Vec<Node>,
    numbers: HashMap<Item, u32>,
}

impl Found {
    fn number(&mut self, model: &Model, item: Item) -> u32 {
        let nodes = &mut self.nodes;
        *self.numbers.entry(item).or_insert_with(|| {
            let looks = Looks {
                fault: model.fault(&item),
                phase: model.cashout(&item).map_or("", |cashout| cashout.phase.name()),
                begun: item.has_begun(),
                occupies: model.cashout(&item).is_some_and(CashOut::occupies_atm),
                idle: item.device_is_idle(),
                at_end: model.is_at_end(&item),
                named: model.is_named(&item),
            };
            nodes.push(Node {
                item,
                looks,
                steps: Vec::new(),
                crashed: [0; 2],
            });
            number(nodes.len() - 1)
        })
    }
}

/// Splits the values by their looks, then by the classes that their steps lead to, until no class falls apart.
fn refined(nodes: &[Node]) -> Vec<u32> {
    let mut class_of = vec![0_u32; nodes.len()];
    let mut count = 0;
    loop {
        let mut numbers: HashMap<(u64, u64), u32> = HashMap::new();
        let mut next = Vec::with_capacity(nodes.len());
        for (node, class) in nodes.iter().zip(&class_of) {
            let print = fingerprint(node, *class, &class_of);
            let fresh = number(numbers.len());
            next.push(*numbers.entry(print).or_insert(fresh));
        }
        class_of = next;
        if numbers.len() == count {
            return class_of;
        }
        count = numbers.len();
    }
}

/// 128 bits: that two of some ten thousand agree by chance is out of the question.
fn fingerprint(node: &Node, class: u32, class_of: &[u32]) -> (u64, u64) {
    let of = |number: u32| class_of[number as usize];
    let mut steps: Vec<(u8, u32, &Option<String>)> = Vec::with_capacity(node.steps.len());
    steps.extend(node.steps.iter().map(|step| (step.who as u8, of(step.to), &step.fault)));
    steps.sort_unstable();
    steps.dedup();
    let print = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, class, &node.looks, &steps, node.crashed.map(of)).hash(&mut hasher);
        hasher.finish()
    };
    (print(0), print(1))
}

fn classes(nodes: &[Node], class_of: &[u32]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for (node, class) in nodes.iter().zip(class_of) {
        // Numbered in the order of their first member.
        if classes.len() > *class as usize {
            continue;
        }
        let of = |number: u32| class_of[number as usize];
        let mut steps: Vec<_> = node.steps.iter().map(|s| (s.who, of(s.to), s.fault.clone())).collect();
        let mut seen = Vec::new();
        steps.retain(|step| {
            let new = !seen.contains(step) && (step.1 != *class || step.2.is_some());
            seen.push(step.clone());
            new
        });
        classes.push(Class {
            looks: node.looks.clone(),
            steps,
            crashed: node.crashed.map(of),
        });
    }
    classes
}
