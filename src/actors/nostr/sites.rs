//! What sites tell of themselves: their machines, cassettes and open items, as the lists and metrics show them.
//!
//! Kept in memory and, for the next life, in the sled beside the seen ids: not the truth of anything. What must stay
//! true: only clients are sites, so there are never more of them; a report is bounded, and no text of it can do more to
//! an operator's terminal than be shown: any client may send one.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Caller, Desk};
use crate::api::{SiteReport, SiteView};
use crate::ids::ClientName;
use crate::nostr::wire::{Code, Failure};
use crate::time::UnixMs;

/// A site that was not heard of for so long is shown as down.
pub const DOWN: Duration = Duration::from_secs(120);
pub(super) const ATMS: usize = 64;
const CASSETTES: usize = 16;
pub(super) const WAITING: usize = 256;
/// No reason is longer, in characters.
const TEXT: usize = 256;

/// All sites that were ever heard of.
#[derive(Debug, Default)]
pub struct Sites {
    heard: BTreeMap<ClientName, Heard>,
}

/// A site's last report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heard {
    /// When it came.
    pub at: UnixMs,
    /// What it said.
    pub report: SiteReport,
}

impl Sites {
    /// A site was heard.
    pub fn hear(&mut self, site: ClientName, heard: Heard) {
        self.heard.insert(site, heard);
    }

    /// The sites among those that `known` says are clients still.
    pub fn views(&mut self, now: UnixMs, known: impl Fn(&ClientName) -> bool) -> Vec<SiteView> {
        self.heard.retain(|site, _| known(site));
        let view = |(site, heard): (&ClientName, &Heard)| SiteView {
            site: site.clone(),
            down: now.since(heard.at) >= DOWN,
            heard_unix_ms: heard.at,
            report: heard.report.clone(),
        };
        self.heard.iter().map(view).collect()
    }
}

/// What makes a report too large to keep.
fn excess(report: &SiteReport) -> Option<String> {
    let over =
        |field: &str, found: usize, most: usize| (found > most).then(|| format!("{field} may hold at most {most}"));
    let cassettes = report.atms.iter().map(|atm| atm.cassettes.len()).max().unwrap_or(0);
    over("report.atms", report.atms.len(), ATMS)
        .or_else(|| over("report.atms.cassettes", cassettes, CASSETTES))
        .or_else(|| over("report.waiting", report.waiting.len(), WAITING))
}

/// A text as it may be shown: short, and without what a terminal obeys.
fn tame(text: &mut String) {
    let kept = text.chars().take(TEXT);
    *text = kept.map(|c| if c.is_control() { ' ' } else { c }).collect();
}

/// Every text that the site is free to choose.
fn tame_all(report: &mut SiteReport) {
    tame(&mut report.version);
    for atm in &mut report.atms {
        tame(&mut atm.name);
        tame(&mut atm.state);
        atm.reason.iter_mut().for_each(tame);
    }
    for item in &mut report.waiting {
        tame(&mut item.state);
        item.reason.iter_mut().for_each(tame);
        item.operator_action.iter_mut().for_each(tame);
    }
}

impl Desk {
    pub(super) fn report(&self, caller: &Caller, mut report: SiteReport) -> Result<serde_json::Value, Failure> {
        let (site, _) = caller.client()?;
        if let Some(why) = excess(&report) {
            return Err(Failure::new(Code::BadRequest, why));
        }
        tame_all(&mut report);
        let heard = Heard {
            at: self.shared.clock.now(),
            report,
        };
        if let (Some(gate), Ok(text)) = (&self.shared.gate, serde_json::to_vec(&heard)) {
            gate.keep_site(site, text);
        }
        let mut sites = self.shared.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.hear(site.clone(), heard);
        Ok(serde_json::json!({}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(atms: usize) -> SiteReport {
        let atm = crate::api::AtmView {
            id: "a".parse().unwrap(),
            name: "a".into(),
            state: "ready".into(),
            reason: None,
            cassettes: Vec::new(),
            open: Vec::new(),
        };
        SiteReport {
            version: "1".into(),
            now_unix_ms: UnixMs(1),
            atms: vec![atm; atms],
            waiting: Vec::new(),
        }
    }

    #[test]
    fn a_site_unheard_of_for_two_minutes_is_down_and_a_revoked_one_is_gone() {
        let (name, mut sites): (ClientName, _) = ("kiosk".parse().unwrap(), Sites::default());
        sites.hear(
            name.clone(),
            Heard {
                at: UnixMs(1_000),
                report: report(1),
            },
        );
        assert!(!sites.views(UnixMs(120_999), |_| true)[0].down);
        assert!(sites.views(UnixMs(121_000), |_| true)[0].down);
        assert!(sites.views(UnixMs(2_000), |_| false).is_empty());
    }

    #[test]
    fn a_report_can_only_be_shown() {
        let mut told = report(1);
        let escape = format!("\u{1b}]0;x\u{7}\r\nsite bar: ready{}", "x".repeat(1_000));
        told.version.clone_from(&escape);
        told.atms[0].name.clone_from(&escape);
        told.atms[0].state.clone_from(&escape);
        told.atms[0].reason = Some(escape.clone());
        told.waiting = vec![crate::api::WaitingItem {
            id: crate::ids::CashOutId::new(UnixMs(1), 1),
            atm: "a".parse().unwrap(),
            state: escape.clone(),
            reason: Some(escape.clone()),
            operator_action: Some(escape),
        }];
        tame_all(&mut told);
        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("\\u00") && !text.contains("\\n"), "{text}");
        assert!(text.contains("site bar: ready") && text.len() < 8 * TEXT, "{text}");
    }

    #[test]
    fn a_report_is_bounded() {
        assert_eq!(excess(&report(ATMS)), None);
        assert_eq!(excess(&report(ATMS + 1)).unwrap(), "report.atms may hold at most 64");
    }
}
