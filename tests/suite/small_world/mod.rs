//! The small world, exhaustively: one machine, two customers one after the other, up to two crashes, every order of steps.
//!
//! `table.rs` numbers the states of the real machines; `item.rs` is one customer with LND's and the dispenser's truth beside
//! tellerd's; `model.rs`, the four `*steps.rs` and `deaths.rs` say what may happen next; `rules.rs` what must be true;
//! `graph.rs` and `world.rs` explore; `broken.rs` proves that they find something; `history.rs` holds the model against what
//! real fleets did. Figures and bounds are in docs/RELIABILITY.md.

#![allow(clippy::unwrap_used, clippy::panic)]

mod broken;
mod deaths;
mod dispenser_steps;
mod graph;
pub mod history;
mod invoice_steps;
mod item;
mod model;
mod rules;
mod steps;
mod table;
mod world;
mod world_steps;

use std::collections::BTreeSet;

use tellerd::cashout::{PartialPolicy, UnknownPolicy};
use tellerd::money::Minor;

use broken::Broken;
use model::{Config, Model};
use world::{Bounds, Explored};

/// The operator's rules as they are when he does not change them, and everything that can go wrong.
const DEFAULT: Config = Config {
    partial: PartialPolicy::Owe,
    unknown: UnknownPolicy::Cancel,
    follow: true,
    late: true,
    actors_die: true,
    broken: None,
};

const ABSORB: PartialPolicy = PartialPolicy::Absorb { limit: Minor(3_000) };

fn explore(config: Config, customers: u8, crashes: u8) -> Explored {
    let explored = world::explore(Model::new(config), Bounds { customers, crashes });
    println!("{customers} customers, {crashes} crashes: {explored}");
    explored
}

fn is_sound(explored: &Explored) {
    if let Some(violation) = &explored.violation {
        panic!("{violation}");
    }
}

#[test]
fn two_customers_and_two_crashes_in_every_order() {
    let explored = explore(DEFAULT, 2, 2);
    is_sound(&explored);
    assert!(explored.states > 1_000_000, "the world became small: {explored}");
    let mut pairs = BTreeSet::from([["", ""]]);
    pairs.extend(OCCUPYING.map(|first| [first, ""]));
    let seconds = || [""].into_iter().chain(OCCUPYING).chain(GONE);
    pairs.extend(
        GONE.into_iter()
            .flat_map(|first| seconds().map(move |second| [first, second])),
    );
    assert_eq!(explored.pairs, pairs, "all of these, and no others");
}

/// The first customer is at the machine; the second can not come.
const OCCUPYING: [&str; 5] = ["quoted", "awaiting_payment", "held", "dispensing", "outcome_unknown"];
/// He has gone, and the second may be anywhere.
const GONE: [&str; 6] = [
    "settling",
    "canceling",
    "completed",
    "canceled",
    "claim_owed",
    "needs_operator",
];

/// Nothing that a machine knows is left out.
#[test]
fn every_state_and_every_event_comes_up() {
    let config = Config {
        late: false,
        actors_die: false,
        ..DEFAULT
    };
    let mut model = Model::new(config);
    let graph = graph::Graph::of(&mut model);
    let (mut states, mut events) = (BTreeSet::new(), BTreeSet::new());
    for node in &graph.nodes {
        let item = &node.item;
        states.extend(model.cashout(item).map(|cashout| cashout.phase.name().to_owned()));
        states.extend(
            model
                .invoice(item)
                .map(|invoice| format!("invoice {}", invoice.phase.name())),
        );
        events.extend(
            model
                .cashouts
                .get_event(item.cashout.writes)
                .map(|event| event.name().to_owned()),
        );
        let of_invoice = model.invoices.get_event(item.invoice.writes);
        events.extend(of_invoice.map(|event| format!("invoice {}", event.name())));
    }
    assert_eq!(states.len(), 11 + 8, "{states:?}");
    // `Quoted` is the promise itself.
    assert_eq!(events.len(), 15 + 12, "{events:?}");
}

/// Without late messages and deaths of single actors, which no policy knows of.
#[test]
fn every_policy_keeps_the_rules() {
    for (partial, unknown, follow) in [
        (PartialPolicy::Owe, UnknownPolicy::Cancel, false),
        (PartialPolicy::Owe, UnknownPolicy::Settle, true),
        (ABSORB, UnknownPolicy::Cancel, true),
        (ABSORB, UnknownPolicy::Settle, true),
    ] {
        let config = Config {
            partial,
            unknown,
            follow,
            late: false,
            actors_die: false,
            broken: None,
        };
        is_sound(&explore(config, 2, 2));
    }
}

/// Called by .ci/run: `cargo test --test suite small_world -- --ignored`.
#[test]
#[ignore = "a minute or two"]
fn every_policy_with_everything_that_goes_wrong() {
    for partial in [PartialPolicy::Owe, ABSORB] {
        for unknown in [UnknownPolicy::Cancel, UnknownPolicy::Settle] {
            is_sound(&explore(
                Config {
                    partial,
                    unknown,
                    ..DEFAULT
                },
                2,
                2,
            ));
        }
    }
}

/// Each mistake, the rule that it breaks, and the number of steps of the shortest way there.
const FOUND: [(Broken, &str, usize); 19] = [
    (Broken::SettleBeforeReport, "write before act", 26),
    (Broken::DispenseBeforeIntent, "write before act", 19),
    (Broken::DispenseAgainAfterRestart, "at most once", 24),
    (Broken::ResendMotion, "at most once", 23),
    (Broken::CancelAfterUnknown, "conservation", 24),
    (Broken::DecidedAtOnce, "unknown is a state", 21),
    (Broken::NewMixAfterUnknown, "conservation", 24),
    (Broken::DeadlineLostAtRestart, "deadlines survive", 2),
    (Broken::HoldDeadlineLostAtRestart, "deadlines survive", 4),
    (Broken::StreamEndFinal, "truthful", 11),
    (Broken::LostAnswerIsSettled, "truthful", 29),
    (Broken::HoldNotReread, "no dispense without a hold", 22),
    (Broken::StaleCheck, "no dispense without a hold", 23),
    (Broken::LossNotBooked, "no cancel after cash", 27),
    (Broken::NotesBookedTwice, "conservation", 24),
    (Broken::CancelingIsCanceled, "truthful", 14),
    (Broken::NeverAsksAgain, "liveness", 2),
    (Broken::PromiseWhileBusy, "one customer at a time", 2),
    (Broken::SettledWhateverLndSays, "truthful", 29),
];

#[test]
fn each_mistake_is_found_on_the_shortest_way() {
    let mut found = Vec::new();
    for (broken, rule, _) in FOUND {
        let config = Config {
            partial: if broken == Broken::LossNotBooked {
                ABSORB
            } else {
                PartialPolicy::Owe
            },
            late: false,
            actors_die: false,
            broken: Some(broken),
            ..DEFAULT
        };
        let explored = explore(config, 2, 2);
        let violation = explored.violation.unwrap_or_else(|| panic!("{broken:?} was not found"));
        println!("{broken:?}: {violation}");
        assert!(violation.rule.starts_with(rule), "{broken:?} was found as {violation}");
        found.push((broken, rule, violation.steps.len()));
    }
    assert_eq!(found, FOUND);
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RELIABILITY.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<String> = found
        .iter()
        .map(|(_, rule, steps)| format!("| {rule} | {steps} |"))
        .collect();
    let table = page
        .lines()
        .skip_while(|line| *line != "| mistake | broken rule | steps |")
        .skip(2);
    let written: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert_eq!(written.len(), rows.len());
    for (line, row) in written.iter().zip(&rows) {
        assert!(line.ends_with(row), "docs/RELIABILITY.md says {line}, found was {row}");
    }
}
