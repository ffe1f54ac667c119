//! One history from its first customer to the audit.
//!
//! Called by tests and by the command line. What must stay true: one thread, time that stands still unless everyone waits, and no
//! chance but the seed's: the same seed makes the same steps.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::chance::SeededEntropy;
use super::device::{Stand, names};
use super::life::{Lives, World, is_too_long};
use super::people::{Visits, customers, ledger, operator, rests};
use super::plan::Plan;
use super::rules::Broken;
use super::scene::{Figures, Scene, Trace};
use super::{SeededError, chain, panics};
use crate::actors::fleet::Fleet;
use crate::actors::views;
use crate::api::CashOutView;
use crate::cashout::CashOut;
use crate::config::Config;
use crate::ids::{AtmId, PaymentHash};
use crate::metrics::{AtmState, Metrics};
use crate::money::Funds;
use crate::sim::audit::{DECIDED_AT_DEADLINE, Evidence, Facts, Statement, Violation, Visit, judge};
use crate::sim::fleet::setup::rate;
use crate::sim::lnd::node::record::InvoiceState;
use crate::time::UnixMs;

/// What came of a history.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its counts.
    pub figures: Figures,
    /// The rule that was broken, if one was.
    pub broken: Option<Broken>,
    /// All steps, when they were asked for.
    pub trace: Trace,
    /// How long it was, in its own time.
    pub lasted: Duration,
}

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    /// In memory where the system has such a place: nothing here has to outlive the process.
    fn new() -> Result<Self, SeededError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("tellerd-seeded-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|source| SeededError::Folder {
            dir: dir.clone(),
            source,
        })?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be in use no more, and if it can not be removed nobody is hurt.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lives through the history of `plan`.
///
/// # Errors
/// When the system does not let it.
pub fn run(plan: Plan, traced: bool) -> Result<Outcome, SeededError> {
    let scratch = Scratch::new()?;
    let config = Config::parse(&plan.config(), &scratch.0.join("fleet.toml"))?;
    panics::watch();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.map_err(SeededError::Runtime)?;
    runtime.block_on(history(plan, traced, &config))
}

async fn history(plan: Plan, traced: bool, config: &Config) -> Result<Outcome, SeededError> {
    let begun = Instant::now();
    let scene = Arc::new(Scene::new(plan, traced));
    let mut tasks = JoinSet::new();
    let mut stands = Vec::new();
    for (index, atm) in names(&scene.plan).into_iter().enumerate() {
        let (stand, machine) = Stand::new(&scene, index, atm).map_err(SeededError::Runtime)?;
        tasks.spawn(machine);
        stands.push(stand);
    }
    let world = Arc::new(World::new(Arc::clone(&scene), stands));
    tasks.spawn(chain::tick(Arc::clone(&scene)));
    tasks.spawn(chain::blocks(Arc::clone(&scene)));
    tasks.spawn(chain::restarts(Arc::clone(&scene)));
    tasks.spawn(chain::sync(Arc::clone(&scene)));
    tasks.spawn(chain::peer(Arc::clone(&scene)));
    let lives = Lives {
        world: &world,
        config,
        dir: &config.data_dir,
        entropy: Arc::new(SeededEntropy::new(scene.plan.seed)),
        metrics: Metrics::new().map_err(|error| SeededError::Metrics(error.to_string()))?,
    };
    let mut over = scene.over.subscribe();
    tokio::select! {
        biased;
        _ = over.wait_for(|over| *over) => {}
        lived = lives.go_on() => lived?,
        () = story(&world) => {}
    }
    if let Some(found) = panics::unordered() {
        let rule = "panicked";
        scene.broken(Broken { rule, found });
    }
    world.kill("the history is over");
    let (figures, broken, trace) = scene.result();
    Ok(Outcome {
        figures,
        broken,
        trace,
        lasted: begun.elapsed(),
    })
}

/// Customers come; then everything is mended and comes to rest; then it is audited.
async fn story(world: &Arc<World>) {
    let visits = Visits::default();
    let mut people = JoinSet::new();
    let mut staff = JoinSet::new();
    staff.spawn(operator(Arc::clone(world)));
    for index in 0..world.stands.len() {
        people.spawn(customers(Arc::clone(world), index, Arc::clone(&visits)));
    }
    while let Some(person) = people.join_next().await {
        if let Err(error) = person {
            let found = format!("a customer: {error}");
            return world.scene.broken(Broken {
                rule: "simulation",
                found,
            });
        }
    }
    world.scene.calm_down();
    let begun = Instant::now();
    let statement = loop {
        sleep(Duration::from_secs(20)).await;
        let said = world.ask(last_words).await.flatten();
        let open = match said {
            Some((statement, open)) if open.is_empty() && node_rests(world) && counted(world) => break statement,
            Some((_, open)) => open,
            None => vec!["the daemon does not answer".to_owned()],
        };
        if is_too_long(begun) {
            let found = format!("after {} h: {}", begun.elapsed().as_secs() / 3600, open.join("; "));
            return world.scene.broken(Broken {
                rule: "never_ends",
                found,
            });
        }
    };
    staff.shutdown().await;
    for cashout in &statement.cashouts {
        world
            .scene
            .count(|figures| *figures.ends.entry(cashout.state.clone()).or_default() += 1);
    }
    let visits = std::mem::take(&mut *visits.lock().unwrap_or_else(PoisonError::into_inner));
    audit(world, statement, visits);
}

/// Every cash-out and machine, and which are not at their end.
async fn last_words(fleet: Fleet) -> Option<(Statement, Vec<String>)> {
    let cashouts = fleet.cashouts(None, None, usize::MAX).await.ok()?;
    let atms = fleet.atms().await;
    let at_end = |cashout: &CashOut| rests(cashout) && cashout.funds() != Some(Funds::Pending);
    let open = cashouts.iter().filter(|cashout| !at_end(cashout));
    let open = open.map(|cashout| format!("{} is {:?}", cashout.id, cashout.phase));
    // The operator has been at every machine, so the books are what is in it.
    let away = atms.iter().filter(|atm| atm.state != AtmState::Ready);
    let away = away.map(|atm| format!("{} is {:?}: {:?}", atm.id, atm.state, atm.reason));
    let open = open.chain(away).collect();
    let statement = Statement {
        cashouts: cashouts.iter().map(views::cashout).collect(),
        atms: atms.iter().map(views::atm).collect(),
        sites: Vec::new(),
    };
    Some((statement, open))
}

/// Every machine that somebody had open was counted since.
fn counted(world: &World) -> bool {
    !world.stands.iter().any(|stand| stand.uncounted.load(Ordering::SeqCst))
}

/// No invoice is left of which the daemon does not know the end.
fn node_rests(world: &World) -> bool {
    let orphan = |state| !matches!(state, InvoiceState::Settled | InvoiceState::Canceled);
    world
        .scene
        .look(|side| !side.node.invoices().any(|invoice| orphan(invoice.state)))
}

/// The audit of `tellerd simulate`.
fn audit(world: &World, statement: Statement, visits: Vec<Visit>) {
    let scene = &world.scene;
    let Ok(rate) = rate() else { return };
    let evidence = Evidence {
        machines: world.stands.iter().map(Stand::machine).collect(),
        ledger: ledger(world),
        rate,
        visits,
        sites: Vec::new(),
        statement,
    };
    let mut facts = Facts::of(&evidence);
    let known = scene.books(|books| {
        let decided = (
            books.decisions.by_policy.clone(),
            books.decisions.taken_for_dispensed.clone(),
        );
        Ok((books.excused.clone(), decided))
    });
    let Some((excused, (by_policy, taken))) = known else {
        return;
    };
    give_back(&mut facts, &excused);
    let mut violations: Vec<Violation> = judge(&evidence, &facts).violations;
    violations.retain(|violation| {
        let amounts = [
            "settled_with_wrong_claim",
            "settled_without_cash",
            "canceled_with_wrong_loss",
        ];
        !(amounts.contains(&violation.rule) && violation.cashout.is_some_and(|id| taken.contains(&id)))
    });
    let excuse = |view: &&CashOutView| view.reason.as_deref() == Some(DECIDED_AT_DEADLINE);
    let mut excuses = evidence.statement.cashouts.iter().filter(excuse);
    if let Some(view) = excuses.find(|view| !by_policy.contains(&view.id)) {
        let found = format!("{} says that policy decided it", view.id);
        return scene.broken(Broken {
            rule: "false_excuse",
            found,
        });
    }
    if let Some(first) = violations.first() {
        let (rule, cashout) = (first.rule, first.cashout.map(|id| id.to_string()).unwrap_or_default());
        let found = format!("{cashout} {}", first.found);
        scene.broken(Broken { rule, found });
    }
}

/// Gives dispenses whose hold LND gave up between the check and the command to their cash-outs: their notes count.
fn give_back(facts: &mut Facts, excused: &[(AtmId, UnixMs, PaymentHash)]) {
    for (atm, dispense) in std::mem::take(&mut facts.unheld) {
        let excuse = excused.iter().find(|(at, when, _)| *at == atm && *when == dispense.at);
        let owner = excuse.and_then(|(_, _, hash)| facts.cashouts.iter_mut().find(|fact| fact.hash == *hash));
        match owner {
            Some(fact) => fact.dispenses.push(dispense),
            None => facts.unheld.push((atm, dispense)),
        }
    }
}
