//! The server's list of its sites, against the sites that there are.
//!
//! Pure; called by the rules. What must stay true: a site that is not heard of, or whose machines are not those it has,
//! is told.

use std::collections::BTreeSet;

use super::{Evidence, Violation};
use crate::ids::AtmId;

/// `site_unheard`.
pub(super) fn unheard(evidence: &Evidence) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut found = |found: String| {
        violations.push(Violation {
            rule: "site_unheard",
            atm: None,
            cashout: None,
            found,
        });
    };
    for (site, atms) in &evidence.sites {
        let wanted: BTreeSet<&AtmId> = atms.iter().collect();
        match evidence.statement.sites.iter().find(|view| view.site == *site) {
            None => found(format!("the server does not list {site}")),
            Some(view) if view.down => found(format!("the server says that {site} is down")),
            Some(view) => {
                let listed: BTreeSet<&AtmId> = view.report.atms.iter().map(|atm| &atm.id).collect();
                if listed != wanted {
                    found(format!("the server lists {listed:?} at {site}, there are {wanted:?}"));
                }
            }
        }
    }
    for view in &evidence.statement.sites {
        if !evidence.sites.iter().any(|(site, _)| *site == view.site) {
            found(format!("the server lists {}, there is no such site", view.site));
        }
    }
    violations
}
