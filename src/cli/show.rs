//! Cash-outs and machines as text, for people.

use std::fmt::Write as _;

use crate::api::{AtmView, CashOutView, SiteView};
use crate::money::Funds;
use crate::time::UnixMs;

/// What the customer gets, pays, and by when.
pub(super) fn promise(view: &CashOutView, now: UnixMs) -> String {
    let seconds = view.pay_by_unix_ms.since(now).as_secs();
    format!(
        "cash-out {} at {}\nnotes      {} {}\nprice      {} (with a fee of {} {})\npay within {seconds} s\n",
        view.id, view.atm, view.amount_minor, view.currency, view.price_msat, view.fee_minor, view.currency,
    )
}

/// The state with what it means to the customer; below it, what an operator is to do.
pub(super) fn state(view: &CashOutView) -> String {
    let currency = view.currency;
    let meaning = match view.state.as_str() {
        "quoted" => "the invoice is being made".to_owned(),
        "awaiting_payment" => "waiting for the payment".to_owned(),
        "held" => "paid: LND holds the money".to_owned(),
        "dispensing" => format!("take the notes: {} {currency}", view.amount_minor),
        "outcome_unknown" => "it is not known whether notes came out".to_owned(),
        "settling" => "notes came out; the payment is being taken".to_owned(),
        "canceling" => "the payment is not taken; what was paid goes back".to_owned(),
        "completed" => match view.funds {
            Some(Funds::Pending) => format!(
                "{} {currency} delivered, payment taken; its money is on its way",
                view.delivered_minor
            ),
            _ => format!("{} {currency} delivered, payment taken", view.delivered_minor),
        },
        "canceled" => "no payment was taken".to_owned(),
        "claim_owed" => format!("the customer is owed {} {currency}", view.claim_minor),
        "needs_operator" => "an operator has to decide".to_owned(),
        _ => String::new(),
    };
    let mut text = format!("{:<16} {meaning}", view.state);
    if let Some(reason) = &view.reason {
        let _ = write!(text, " ({reason})");
    }
    if let Some(action) = &view.operator_action {
        let _ = write!(text, "\n                 operator: {action}");
    }
    text
}

/// One line of a list.
pub(super) fn row(view: &CashOutView) -> String {
    let reason = view.reason.as_deref().unwrap_or_default();
    // Final needs no word, and of a node that does not tell `tellerd check` and the metrics speak.
    let money = match view.funds {
        Some(funds @ (Funds::Pending | Funds::Lost)) => format!("money {} ", funds.as_str()),
        _ => String::new(),
    };
    let amount = format!("{} {}", view.amount_minor, view.currency);
    let row = format!(
        "{}  {:<16} {amount:>12}  {:<16} {money}{reason}",
        view.id,
        view.atm.as_str(),
        view.state
    );
    row.trim_end().to_owned()
}

/// A machine with its notes and open cash-outs.
pub(super) fn atm(view: &AtmView) -> String {
    let mut text = format!("{:<16} {:<15} {}", view.id.as_str(), view.state, view.name);
    if let Some(reason) = &view.reason {
        let _ = write!(text, ": {reason}");
    }
    for c in &view.cassettes {
        let _ = write!(
            text,
            "\n  cassette {}: {} notes of {} ({} promised); of {} loaded {} delivered, {} rejected, {} retracted, \
             {} unaccounted",
            c.position,
            c.remaining,
            c.denomination_minor,
            c.reserved,
            c.loaded,
            c.delivered,
            c.rejected,
            c.retracted,
            c.unaccounted
        );
    }
    for id in &view.open {
        let _ = write!(text, "\n  open: {id}");
    }
    text
}

/// A site with its machines, as it told of them last.
pub(super) fn site(view: &SiteView, now: UnixMs) -> String {
    let heard = now.since(view.heard_unix_ms).as_secs();
    let down = if view.down { "DOWN, " } else { "" };
    let mut text = format!("site {}: {down}heard {heard} s ago", view.site);
    for machine in &view.report.atms {
        for line in atm(machine).lines() {
            let _ = write!(text, "\n  {line}");
        }
    }
    for item in &view.report.waiting {
        let action = item.operator_action.as_deref().unwrap_or_default();
        let _ = write!(
            text,
            "\n  {} at {}: {}\n    operator: {action}",
            item.id, item.atm, item.state
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_that_is_not_there_is_named_and_the_rest_is_not() {
        let view = |funds: &str| -> CashOutView {
            let older = serde_json::json!({
                "id": "01JD2M9K7Q8XWV3F", "atm": "lobby", "state": "completed", "reason": null, "ended": true,
                "operator_action": null, "amount_minor": 6_000, "fee_minor": 0, "currency": "EUR", "price_msat": 61_000,
                "payment_request": null, "payment_hash": "", "created_unix_ms": 1, "pay_by_unix_ms": 2,
                "deadline_unix_ms": null, "delivered_minor": 6_000, "claim_minor": 0, "loss_minor": 0, "settled": true,
            });
            let mut view: CashOutView = serde_json::from_value(older).unwrap();
            view.funds = serde_json::from_value(serde_json::json!(funds)).ok();
            view
        };
        assert!(row(&view("pending")).ends_with("completed        money pending"));
        assert!(row(&view("lost")).ends_with("money lost"));
        for quiet in ["final", "not_followed", "of an older daemon: none"] {
            assert!(row(&view(quiet)).ends_with("completed"), "{quiet}");
        }
        assert!(state(&view("pending")).contains("its money is on its way"));
        assert!(!state(&view("final")).contains("on its way"));
    }

    #[test]
    fn a_site_is_shown_with_what_waits_there() {
        let view: SiteView = serde_json::from_value(serde_json::json!({
            "site": "kiosk", "down": true, "heard_unix_ms": 1_000,
            "report": {
                "version": "tellerd 1", "now_unix_ms": 1_000,
                "atms": [{"id": "bar", "name": "Bar", "state": "ready", "reason": null, "cassettes": [],
                    "open": ["01JD2M9K7Q8XWV3F"]}],
                "waiting": [{"id": "01JD2M9K7Q8XWV3F", "atm": "bar", "state": "claim_owed", "reason": null,
                    "operator_action": "Pay the customer"}],
            },
        }))
        .unwrap();
        let shown = site(&view, UnixMs(181_000));
        assert!(
            shown.starts_with("site kiosk: DOWN, heard 180 s ago\n  bar "),
            "{shown}"
        );
        assert!(
            shown.contains("\n    open: ") && shown.contains("at bar: claim_owed"),
            "{shown}"
        );
        assert!(shown.ends_with("operator: Pay the customer"), "{shown}");
    }
}
