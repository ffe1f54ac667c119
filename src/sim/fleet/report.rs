//! The report of a simulation, as JSON and in words.
//!
//! Made by the runner. What must stay true: it says what was found, also when that is bad news.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::costs::Costs;
use super::cycles::Cycles;
use super::{Payments, Transport};
use crate::sim::audit::latency::{Quantiles, stages};
use crate::sim::audit::{Evidence, Facts, OpenItem, Verdict, Violation};
use crate::sim::lnd::node::record::InvoiceState;
use crate::sim::relay::RelayCounts;

/// Open items and excuses shown in words; the JSON has all. Violations are always shown.
const SHOWN: usize = 10;
/// Kinds of faults in one line.
const FAULTS_A_LINE: usize = 6;

/// Cash-outs by their end, in the daemon's words, which the audit has compared with the facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CashOuts {
    /// All.
    pub started: usize,
    /// Notes out and paid for; also those whose claim was paid.
    pub completed: usize,
    /// The customer has the money back, or never paid.
    pub canceled: usize,
    /// Settled, and the customer is owed notes.
    pub claim_owed: usize,
    /// No rule fits.
    pub needs_operator: usize,
    /// Still under way.
    pub open: usize,
}

/// The JSON file.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Everything random came from it.
    pub seed: u64,
    /// Machines.
    pub atms: usize,
    /// What was between the daemon and the machines.
    pub transport: Transport,
    /// Where the hold invoices were made.
    pub payments: Payments,
    /// Sites before a server; 0 when there was no server.
    pub sites: usize,
    /// How long customers came.
    pub duration_s: u64,
    /// What became of the cash-outs.
    pub cashouts: CashOuts,
    /// By the emulators.
    pub notes_delivered: u64,
    /// By the emulators, in cents.
    pub value_delivered_minor: u64,
    /// By the wallets.
    pub sats_settled: u64,
    /// SIGKILLs of the daemon, or of sites.
    pub kills: u64,
    /// With `--kills`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<Cycles>,
    /// SIGKILLs of the sites' server.
    pub server_kills: u64,
    /// Ends of daemons whose disk took no more.
    pub disk_ends: u64,
    /// Faults that took effect in the machines, at the node and on the disks.
    pub faults_injected: u64,
    /// Of them by kind.
    pub faults: BTreeMap<String, u64>,
    /// What happened at each relay.
    pub relays: Vec<RelayCounts>,
    /// Empty when all is well.
    pub violations: Vec<Violation>,
    /// By customers' clocks and the two ledgers, never by the daemon's.
    pub latency_ms: BTreeMap<&'static str, Quantiles>,
    /// What the daemon cost.
    pub daemon: Costs,
    /// What is left open, and why.
    pub open_items: Vec<OpenItem>,
    /// Differences that the daemon itself names as unknown.
    pub excused: Vec<String>,
}

/// What the runner adds to the evidence.
#[derive(Debug, Clone)]
pub struct Run {
    /// Everything random came from it.
    pub seed: u64,
    /// How long customers came.
    pub duration_s: u64,
    /// What was between the daemon and the machines.
    pub transport: Transport,
    /// Where the hold invoices were made.
    pub payments: Payments,
    /// What the daemon cost.
    pub costs: Costs,
    /// SIGKILLs of the daemon, or of sites.
    pub kills: u64,
    /// With `--kills`.
    pub cycles: Option<Cycles>,
    /// SIGKILLs of the sites' server.
    pub server_kills: u64,
    /// Ends of daemons whose disk took no more.
    pub disk_ends: u64,
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// What happened at each relay.
    pub relays: Vec<RelayCounts>,
}

impl Report {
    /// Puts the findings together.
    #[must_use]
    pub fn new(run: Run, evidence: &Evidence, facts: &Facts, verdict: Verdict) -> Self {
        let unheld = facts.unheld.iter().map(|(_, dispense)| dispense);
        let dispenses = || {
            facts
                .cashouts
                .iter()
                .flat_map(|fact| &fact.dispenses)
                .chain(unheld.clone())
        };
        Self {
            seed: run.seed,
            atms: evidence.machines.len(),
            transport: run.transport,
            payments: run.payments,
            sites: evidence.sites.len(),
            duration_s: run.duration_s,
            cashouts: count(evidence),
            notes_delivered: dispenses().map(|dispense| u64::from(dispense.notes)).sum(),
            value_delivered_minor: dispenses().map(|dispense| dispense.value.0).sum(),
            sats_settled: facts.cashouts.iter().map(|fact| fact.settled_msat).sum::<u64>() / 1000,
            kills: run.kills,
            cycles: run.cycles,
            server_kills: run.server_kills,
            disk_ends: run.disk_ends,
            faults_injected: run.faults.values().sum(),
            faults: run.faults,
            relays: run.relays,
            violations: verdict.violations,
            latency_ms: stages(&evidence.visits, facts),
            daemon: run.costs,
            open_items: verdict.open,
            excused: verdict.excused,
        }
    }

    /// For people.
    #[must_use]
    pub fn summary(&self, facts: &Facts) -> String {
        let c = &self.cashouts;
        let count = |state| facts.cashouts.iter().filter(|fact| fact.state == state).count();
        let mut text = format!(
            "\nWhat happened\n  {} cash-outs: {} completed, {} canceled, {} with a claim, {} for the operator, {} under way\n  \
             {} notes left {} machines, worth {}.{:02} EUR\n  \
             {} invoices settled ({} sat), {} canceled, {} still held, {} still open\n  \
             {} faults, {} times SIGKILL, {} ends because of a disk\n",
            c.started,
            c.completed,
            c.canceled,
            c.claim_owed,
            c.needs_operator,
            c.open,
            self.notes_delivered,
            self.atms,
            self.value_delivered_minor / 100,
            self.value_delivered_minor % 100,
            count(InvoiceState::Settled),
            self.sats_settled,
            count(InvoiceState::Canceled),
            count(InvoiceState::Accepted),
            count(InvoiceState::Open),
            self.faults_injected,
            self.kills,
            self.disk_ends,
        );
        self.say_faults(&mut text);
        if let Some(cycles) = &self.cycles {
            _ = writeln!(text, "  {}", cycles.line());
        }
        self.say_relays(&mut text);
        // Writing to a string does not fail.
        for (stage, q) in &self.latency_ms {
            _ = writeln!(text, "  {stage}: half within {} ms, 99 % within {} ms", q.p50, q.p99);
        }
        text += &self.daemon.summary(self.atms);
        self.say_open(&mut text);
        self.say_verdict(&mut text);
        text
    }

    fn say_faults(&self, text: &mut String) {
        let kinds: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        for line in kinds.chunks(FAULTS_A_LINE) {
            _ = writeln!(text, "    {}", line.join(", "));
        }
    }

    fn say_relays(&self, text: &mut String) {
        if self.relays.is_empty() {
            return;
        }
        let sum = |count: fn(&RelayCounts) -> u64| self.relays.iter().map(count).sum::<u64>();
        _ = writeln!(
            text,
            "  {} sites before a server that was killed {} times\n  \
             {} relays: {} events taken ({} dropped, {} refused as too many), {} delivered ({} repeated, {} late),\n  \
             {} OKs lost, {} connections ({} cut, {} outages), {} subscriptions closed",
            self.sites,
            self.server_kills,
            self.relays.len(),
            sum(|c| c.published),
            sum(|c| c.dropped),
            sum(|c| c.rate_limited),
            sum(|c| c.delivered),
            sum(|c| c.duplicated),
            sum(|c| c.delayed),
            sum(|c| c.oks_lost),
            sum(|c| c.connections),
            sum(|c| c.cut),
            sum(|c| c.outages),
            sum(|c| c.closed),
        );
    }

    fn say_open(&self, text: &mut String) {
        if !self.open_items.is_empty() {
            _ = writeln!(text, "\nLeft open, each named by the daemon itself");
        }
        for item in self.open_items.iter().take(SHOWN) {
            _ = writeln!(text, "  {} {}: {}", item.id, item.state, item.why);
        }
        say_more(text, self.open_items.len());
        if !self.excused.is_empty() {
            _ = writeln!(text, "\nNot exact, and the daemon says so");
        }
        for excuse in self.excused.iter().take(SHOWN) {
            _ = writeln!(text, "  {excuse}");
        }
        say_more(text, self.excused.len());
    }

    fn say_verdict(&self, text: &mut String) {
        _ = writeln!(
            text,
            "\nThe audit compared, cash-out by cash-out, the notes that left each machine (by the machines' own count)\n\
             with what the node settled, canceled or holds (by the node's own record), and both with what the daemon says."
        );
        if self.violations.is_empty() {
            _ = writeln!(
                text,
                "No violation: no note without a hold, none twice, none unpaid, no payment without its notes."
            );
            return;
        }
        _ = writeln!(text, "{} VIOLATIONS", self.violations.len());
        for violation in &self.violations {
            let atm = violation.atm.as_ref().map(|atm| format!(" {atm}")).unwrap_or_default();
            let id = violation.cashout.map(|id| format!(" {id}")).unwrap_or_default();
            _ = writeln!(text, "  {}{atm}{id}: {}", violation.rule, violation.found);
        }
    }
}

fn say_more(text: &mut String, all: usize) {
    if let Some(more @ 1..) = all.checked_sub(SHOWN) {
        _ = writeln!(text, "  and {more} more: see the report (--report FILE)");
    }
}

fn count(evidence: &Evidence) -> CashOuts {
    let mut counted = CashOuts {
        started: evidence.statement.cashouts.len(),
        ..CashOuts::default()
    };
    for view in &evidence.statement.cashouts {
        let pot = match view.state.as_str() {
            "completed" => &mut counted.completed,
            "canceled" => &mut counted.canceled,
            "claim_owed" => &mut counted.claim_owed,
            "needs_operator" => &mut counted.needs_operator,
            _ => &mut counted.open,
        };
        *pot += 1;
    }
    counted
}
