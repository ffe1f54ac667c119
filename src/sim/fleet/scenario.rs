//! What happens in a simulation: how customers behave, what goes wrong and how often.
//!
//! Read from TOML by `tellerd simulate`; a table for people is in docs/SIMULATION.md. What must stay true: every
//! mistake is told with its line and key, as for the configuration; a scenario says nothing about the seed.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::arrivals::Arrivals;
use super::fault::{FAULTS, FaultKind};
use super::trouble::{self, DiskTerms, LndTerms};
use crate::config::ConfigErrors;
use crate::config::reader::{self, Section};
use crate::config::value::{duration, number, positive_amount, text};
use crate::money::Minor;
use crate::sim::relay::RelayFaults;

/// Everything about a simulation but its size, length and seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// One sentence for whoever watches.
    pub about: String,
    /// `[customers]`
    pub customers: Customers,
    /// `[machines]`
    pub machines: Machines,
    /// `[faults]`: percent of dispenses that each befalls.
    pub faults: Vec<(FaultKind, u32)>,
    /// `[operator]`
    pub operator: Operator,
    /// `[daemon]`
    pub daemon: DaemonTerms,
    /// `[lnd]`
    pub lnd: LndTerms,
    /// `[disk]`; `None`: the real one.
    pub disk: Option<DiskTerms>,
    /// `[relay]` and `[server]`; `None` when neither is there. Only with sites.
    pub nostr: Option<NostrTerms>,
}

/// `[customers]`
#[derive(Debug, Clone, PartialEq)]
pub struct Customers {
    /// Mean time between two customers of one ATM.
    pub pause: Duration,
    /// How their times are drawn.
    pub arrivals: Arrivals,
    /// What they ask for.
    pub amounts: Vec<Minor>,
    /// How they behave; weights, not all zero.
    pub shares: Vec<(Behaviour, u32)>,
}

/// `[machines]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machines {
    /// Notes in each cassette at the start, and after the operator came.
    pub notes: u32,
    /// At or below this the operator comes.
    pub low_notes: u32,
    /// Motor time of one note.
    pub note_time: Duration,
}

/// `[operator]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator {
    /// From trouble to the operator standing before the machine.
    pub delay: Duration,
    /// Percent of claims that are paid; the others stay open.
    pub claims_paid: u32,
}

/// `[daemon]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonTerms {
    /// Mean time between two SIGKILLs of the daemon, or of any one site; `None`: never killed.
    pub kill_every: Option<Duration>,
    /// `policy.payment_timeout`
    pub payment_timeout: Duration,
    /// `policy.hold_deadline`
    pub hold_deadline: Duration,
    /// `policy.unknown_deadline`
    pub unknown_deadline: Duration,
}

/// `[relay]` and `[server]`
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NostrTerms {
    /// What goes wrong at each relay.
    pub relay: RelayFaults,
    /// `server.kill_every`: mean time between two SIGKILLs of the sites' server; `None`: never killed.
    pub kill_server_every: Option<Duration>,
}

/// What a customer does with the invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Pays.
    PaysAtOnce,
    /// Pays after a while, in time.
    Hesitates,
    /// Never pays.
    WalksAway,
    /// Pays when the invoice is over.
    PaysLate,
    /// Pays more than asked.
    Overpays,
    /// Pays in three HTLCs.
    PaysInParts,
    /// One of three HTLCs never arrives.
    IncompleteParts,
    /// Presses cancel; every second one has paid just before.
    Cancels,
}

/// All behaviours by their keys.
pub const BEHAVIOURS: [(&str, Behaviour); 8] = [
    ("pays_at_once", Behaviour::PaysAtOnce),
    ("hesitates", Behaviour::Hesitates),
    ("walks_away", Behaviour::WalksAway),
    ("pays_late", Behaviour::PaysLate),
    ("overpays", Behaviour::Overpays),
    ("pays_in_parts", Behaviour::PaysInParts),
    ("incomplete_parts", Behaviour::IncompleteParts),
    ("cancels", Behaviour::Cancels),
];

/// The scenario when none is named.
const DEFAULT: &str = include_str!("default.toml");

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// Every mistake in it, or why it can not be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigErrors {
            file: path.to_owned(),
            mistakes: Vec::new(),
            source: Some(source),
        })?;
        Self::parse(&text, path)
    }

    /// The one that is built in.
    ///
    /// # Errors
    /// Never: a test reads it.
    pub fn built_in() -> Result<Self, ConfigErrors> {
        Self::parse(DEFAULT, Path::new("the built-in scenario"))
    }

    /// As [`Scenario::load`], from text.
    ///
    /// # Errors
    /// Every mistake in the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        reader::parse(text, path, read)
    }
}

fn read(mut root: Section) -> Option<Scenario> {
    let about = root.required("about", text);
    let customers = customers(root.section("customers"));
    let machines = machines(root.section("machines"));
    let faults = faults(root.section("faults"));
    let operator = operator(root.section("operator"));
    let daemon = daemon(root.section("daemon"));
    let lnd = trouble::lnd(root.section("lnd"));
    let has_disk = root.has("disk");
    let disk = trouble::disk(root.section("disk"));
    let on_nostr = root.has("relay") || root.has("server");
    let nostr = NostrTerms {
        relay: relay(root.section("relay")),
        kill_server_every: server(root.section("server")),
    };
    root.finish();
    Some(Scenario {
        about: about?,
        customers,
        machines,
        faults,
        operator,
        daemon,
        lnd,
        disk: has_disk.then_some(disk),
        nostr: on_nostr.then_some(nostr),
    })
}

fn customers(mut section: Section) -> Customers {
    let pause = section.or("pause", duration, Duration::from_secs(2));
    let arrivals = Arrivals::read(&mut section);
    let usual = || [20, 40, 60, 100, 140, 200].map(|units| Minor(units * 100)).to_vec();
    let amounts = section.optional("amounts", amounts).unwrap_or_else(usual);
    let mut shares: Vec<(Behaviour, u32)> = Vec::new();
    for (key, behaviour) in BEHAVIOURS {
        let share = section.or(key, number(0..=1000_u32), 0);
        shares.push((behaviour, share));
    }
    if shares.iter().all(|(_, share)| *share == 0) {
        section.mistake(
            "pays_at_once",
            "no customer behaves in any way: give at least one share",
        );
    }
    section.finish();
    Customers {
        pause,
        arrivals,
        amounts,
        shares,
    }
}

/// What the fleet's notes of 20 and 50 can make is the daemon's to judge.
fn amounts(value: &DeValue) -> Result<Vec<Minor>, String> {
    let array = value.as_array().ok_or("a list of amounts expected, as in [20, 60]")?;
    let amounts: Result<Vec<Minor>, String> = array.iter().map(|value| positive_amount(value.get_ref())).collect();
    match amounts?.as_slice() {
        [] => Err("at least one amount expected".into()),
        amounts => Ok(amounts.to_vec()),
    }
}

fn machines(mut section: Section) -> Machines {
    let notes = section.or("notes", number(1..=2000_u32), 120);
    let low_notes = section.or("low_notes", number(0..=2000_u32), 20);
    let note_time = section.or("note_time", duration, Duration::from_millis(40));
    if low_notes >= notes {
        section.mistake("low_notes", format!("{low_notes} is not below notes = {notes}"));
    }
    if note_time > Duration::from_millis(100) {
        section.mistake(
            "note_time",
            "more than \"100ms\": the longest dispense would outlast the daemon's wait",
        );
    }
    section.finish();
    Machines {
        notes,
        low_notes,
        note_time,
    }
}

fn faults(mut section: Section) -> Vec<(FaultKind, u32)> {
    let mut faults = Vec::new();
    for (key, kind) in FAULTS {
        let percent = section.or(key, number(0..=100_u32), 0);
        faults.push((kind, percent));
    }
    let sum: u32 = faults.iter().map(|(_, percent)| percent).sum();
    if sum > 100 {
        section.mistake("reject", format!("the faults add up to {sum} percent of the dispenses"));
    }
    section.finish();
    faults
}

fn operator(mut section: Section) -> Operator {
    let delay = section.or("delay", duration, Duration::from_secs(5));
    let claims_paid = section.or("claims_paid", number(0..=100_u32), 70);
    section.finish();
    Operator { delay, claims_paid }
}

fn daemon(mut section: Section) -> DaemonTerms {
    let terms = DaemonTerms {
        kill_every: kill_every(&mut section),
        payment_timeout: section.or("payment_timeout", duration, Duration::from_secs(5)),
        hold_deadline: section.or("hold_deadline", duration, Duration::from_secs(10)),
        unknown_deadline: section.or("unknown_deadline", duration, Duration::from_secs(30)),
    };
    section.finish();
    terms
}

fn kill_every(section: &mut Section) -> Option<Duration> {
    let every = section.optional("kill_every", duration);
    if every.is_some_and(|every| every < Duration::from_secs(1)) {
        section.mistake("kill_every", "below \"1s\" the daemon would do nothing but start");
    }
    every
}

fn server(mut section: Section) -> Option<Duration> {
    let every = kill_every(&mut section);
    section.finish();
    every
}

fn relay(mut section: Section) -> RelayFaults {
    let mut share = |key| f64::from(section.or(key, number(0..=100_u32), 0)) / 100.0;
    let faults = RelayFaults {
        duplicate: share("duplicate"),
        delay: share("delay"),
        drop: share("drop"),
        lose_ok: share("lose_ok"),
        rate_limit: share("rate_limit"),
        refuse_subscription: share("refuse_subscription"),
        cut_every: section.optional("disconnect_every", duration),
        outage_every: section.optional("outage_every", duration),
        outage: section.or("outage", duration, Duration::from_secs(3)),
        delay_max: section.or("delay_max", duration, Duration::from_secs(3)),
        close_every: section.optional("close_every", duration),
        notice_every: section.optional("notice_every", duration),
        no_ok: false,
    };
    if faults.drop + faults.rate_limit > 0.5 {
        section.mistake(
            "drop",
            "together with rate_limit more than 50 percent: hardly anything would arrive",
        );
    }
    section.finish();
    faults
}

#[cfg(test)]
mod tests {
    use super::super::trouble::{DISK_TROUBLES, DiskTrouble, NODE_TROUBLES, NodeTrouble};
    use super::*;

    #[test]
    fn the_scenarios_of_the_house_are_valid_and_named_in_the_docs() {
        let built_in = Scenario::built_in().expect("valid");
        assert!(!built_in.about.is_empty());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/scenarios");
        let mut seen = Vec::new();
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if let Err(errors) = Scenario::load(&path) {
                panic!("{errors}");
            }
            seen.push(path.file_name().expect("name").to_string_lossy().into_owned());
        }
        let page = include_str!("../../../docs/SIMULATION.md");
        for wanted in [
            "calm.toml",
            "jams.toml",
            "crash.toml",
            "kills.toml",
            "flaky-relay.toml",
            "flaky-lnd.toml",
            "disk.toml",
            "everything.toml",
            "scale.toml",
        ] {
            assert!(seen.iter().any(|name| name == wanted), "{wanted} in {seen:?}");
            assert!(page.contains(wanted), "{wanted}");
        }
        for key in BEHAVIOURS.map(|(key, _)| key).iter().chain(&FAULTS.map(|(key, _)| key)) {
            assert!(page.contains(&format!("`{key}`")), "{key} is not in docs/SIMULATION.md");
        }
        let troubles = NODE_TROUBLES.map(|(key, _)| format!("`lnd.{key}`"));
        for key in troubles
            .iter()
            .chain(&DISK_TROUBLES.map(|(key, _)| format!("`disk.{key}`")))
        {
            assert!(page.contains(key), "{key} is not in docs/SIMULATION.md");
        }
    }

    #[test]
    fn what_befalls_node_and_disk_is_read() {
        let least = "about = \"x\"\n[customers]\npays_at_once = 1\n";
        let read = |more: &str| Scenario::parse(&format!("{least}{more}"), Path::new("s.toml"));
        let none = read("").expect("valid");
        assert_eq!((none.lnd.troubles, none.disk), (Vec::new(), None));
        let some = read(
            "[lnd]\njump_every = \"9s\"\nhang_every = \"5s\"\n[disk]\nfull_every = \"7s\"\nslow_sync = \"80ms\"\n",
        );
        let some = some.expect("valid");
        let secs = Duration::from_secs;
        assert_eq!(
            some.lnd.troubles,
            [(NodeTrouble::Hang, secs(5)), (NodeTrouble::Jump, secs(9))]
        );
        let disk = some.disk.expect("some");
        assert_eq!(disk.troubles, [(DiskTrouble::Full, secs(7))]);
        assert_eq!((disk.lasts, disk.slow_sync), (secs(3), Duration::from_millis(80)));
        let wrong = read("[lnd]\nlock_every = \"10ms\"\nslow = 3\n[disk]\nfull_evry = \"7s\"\n");
        let wrong = wrong.expect_err("wrong").to_string();
        let told: Vec<&str> = wrong.lines().collect();
        assert_eq!(told.len(), 3, "{wrong}");
        assert!(told[0].starts_with("s.toml:5: lnd.lock_every: below"), "{wrong}");
        assert!(told[1].starts_with("s.toml:6: lnd.slow: a duration"), "{wrong}");
        assert!(told[2].starts_with("s.toml:8: disk.full_evry: unknown key"), "{wrong}");
    }

    #[test]
    fn relays_and_their_server_are_read() {
        let least = "about = \"x\"\n[customers]\npays_at_once = 1\n";
        let read = |more: &str| Scenario::parse(&format!("{least}{more}"), Path::new("s.toml"));
        assert_eq!(read("").expect("valid").nostr, None);
        let terms = read("[relay]\ndrop = 3\ndisconnect_every = \"9s\"\n[server]\nkill_every = \"20s\"\n");
        let terms = terms.expect("valid").nostr.expect("some");
        assert_eq!(terms.kill_server_every, Some(Duration::from_secs(20)));
        assert_eq!(terms.relay.cut_every, Some(Duration::from_secs(9)));
        assert!((terms.relay.drop - 0.03).abs() < 1e-9);
        let wrong = read("[relay]\ndrop = 40\nrate_limit = 20\n")
            .expect_err("wrong")
            .to_string();
        assert!(wrong.contains("s.toml:5: relay.drop: "), "{wrong}");
    }

    #[test]
    fn every_mistake_is_told_with_line_and_key() {
        let text = "about = \"x\"\n[customers]\npays_at_once = 1\namounts = [20.5]\n[faults]\nreject = 60\ndry = 60\n\
                    [daemon]\nkil_every = \"4s\"\n[machines]\nnotes = 10\nlow_notes = 10\n";
        let errors = Scenario::parse(text, Path::new("s.toml"))
            .expect_err("wrong")
            .to_string();
        let told: Vec<&str> = errors.lines().collect();
        assert_eq!(told.len(), 4, "{errors}");
        assert!(told[0].starts_with("s.toml:4: customers.amounts: "), "{errors}");
        assert!(
            told[1].starts_with("s.toml:6: faults.reject: the faults add up to 120"),
            "{errors}"
        );
        assert!(
            told[2].starts_with("s.toml:9: daemon.kil_every: unknown key"),
            "{errors}"
        );
        assert!(told[3].starts_with("s.toml:12: machines.low_notes: "), "{errors}");
    }

    #[test]
    fn without_customers_nothing_is_simulated() {
        let errors = Scenario::parse("", Path::new("s.toml")).expect_err("wrong").to_string();
        assert!(errors.contains("about: missing"), "{errors}");
        assert!(errors.contains("no customer behaves"), "{errors}");
    }
}
