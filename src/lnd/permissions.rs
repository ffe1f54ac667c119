//! The calls of LND that tellerd makes, and the one command that bakes a macaroon for exactly these.
//!
//! Called by `tellerd check` and by `survey.rs`; README.md and docs/LND.md show the command, and a test compares
//! them with this list. What must stay true: a call that the client makes is in the list; the State service is not, it
//! takes no macaroon. Source: `lncli listpermissions` of lnd v0.21.2-beta.

/// A call that needs a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Identity, height, sync.
    GetInfo,
    /// The state of an invoice.
    LookupInvoice,
    /// A new hold invoice.
    AddHoldInvoice,
    /// Takes the held money.
    SettleInvoice,
    /// Gives it back.
    CancelInvoice,
    /// Each change of an invoice.
    SubscribeSingleInvoice,
    /// Each block.
    RegisterBlockEpochNtfn,
    /// What finally became of an HTLC.
    LookupHtlcResolution,
    /// The same as it happens.
    SubscribeHtlcEvents,
    /// What can be received.
    ListChannels,
    /// The configuration in force.
    GetDebugInfo,
}

/// A right of the macaroon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// The call it allows.
    pub call: Call,
    /// As `lncli bakemacaroon` takes it.
    pub uri: &'static str,
    /// What tellerd does with it; completes "without it tellerd can not …".
    pub purpose: &'static str,
    /// Without it no cash-out is possible; else something is only not known.
    pub required: bool,
}

/// Every right that tellerd uses.
pub const PERMISSIONS: [Permission; 11] = [
    required(
        Call::GetInfo,
        "uri:/lnrpc.Lightning/GetInfo",
        "tell which node it is and whether it is in sync",
    ),
    required(
        Call::LookupInvoice,
        "uri:/lnrpc.Lightning/LookupInvoice",
        "read an invoice's state",
    ),
    required(
        Call::AddHoldInvoice,
        "uri:/invoicesrpc.Invoices/AddHoldInvoice",
        "ask for a payment",
    ),
    required(
        Call::SettleInvoice,
        "uri:/invoicesrpc.Invoices/SettleInvoice",
        "take a held payment",
    ),
    required(
        Call::CancelInvoice,
        "uri:/invoicesrpc.Invoices/CancelInvoice",
        "give a held payment back",
    ),
    required(
        Call::SubscribeSingleInvoice,
        "uri:/invoicesrpc.Invoices/SubscribeSingleInvoice",
        "hear that an invoice was paid",
    ),
    required(
        Call::RegisterBlockEpochNtfn,
        "uri:/chainrpc.ChainNotifier/RegisterBlockEpochNtfn",
        "count the blocks that a hold has left",
    ),
    recommended(
        Call::LookupHtlcResolution,
        "uri:/lnrpc.Lightning/LookupHtlcResolution",
        "tell whether settled money has arrived",
    ),
    recommended(
        Call::SubscribeHtlcEvents,
        "uri:/routerrpc.Router/SubscribeHtlcEvents",
        "hear at once that settled money has arrived",
    ),
    recommended(
        Call::ListChannels,
        "uri:/lnrpc.Lightning/ListChannels",
        "tell how much the node can receive",
    ),
    recommended(
        Call::GetDebugInfo,
        "uri:/lnrpc.Lightning/GetDebugInfo",
        "read the hold expiry delta that is in force",
    ),
];

const fn required(call: Call, uri: &'static str, purpose: &'static str) -> Permission {
    Permission {
        call,
        uri,
        purpose,
        required: true,
    }
}

const fn recommended(call: Call, uri: &'static str, purpose: &'static str) -> Permission {
    Permission {
        call,
        uri,
        purpose,
        required: false,
    }
}

impl Permission {
    /// The call's name in the proto.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.uri.rsplit('/').next().unwrap_or(self.uri)
    }
}

/// The root key that the macaroon is baked with: one of its own, so that it can be revoked without touching others.
pub const ROOT_KEY_ID: u64 = 7;

/// The command that bakes a macaroon with these rights and no others, ready to paste.
#[must_use]
pub fn bake_command() -> String {
    let head = format!("lncli bakemacaroon --save_to tellerd.macaroon --root_key_id {ROOT_KEY_ID}");
    PERMISSIONS.iter().fold(head, |command, permission| {
        format!("{command} \\\n  {}", permission.uri)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With each line's indentation taken away: in a list the command is indented.
    fn flat(text: &str) -> String {
        text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn readme_and_guide_show_exactly_this_command() {
        let command = flat(&bake_command());
        for (name, text) in [
            ("README.md", include_str!("../../README.md")),
            ("docs/LND.md", include_str!("../../docs/LND.md")),
        ] {
            assert!(
                flat(text).contains(&format!("```\n{command}\n```")),
                "{name} lacks\n{command}"
            );
        }
    }

    #[test]
    fn a_method_is_named_by_its_uri() {
        for permission in &PERMISSIONS {
            assert_eq!(permission.method(), format!("{:?}", permission.call));
            assert_eq!(permission.uri.matches('/').count(), 2, "{}", permission.uri);
        }
    }
}
