//! Who a key is: the book of enrolled clients joined with the configuration.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use super::{Book, Limits};
use crate::ids::{ClientName, NostrKey};

/// A human, and the command line behind him.
const OPERATOR_REQUESTS_PER_MINUTE: u32 = 240;

/// Who can only look at, settle and cancel what it has.
const UNFINISHED_REQUESTS_PER_MINUTE: u32 = 60;

/// `[[service.client]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredClient {
    /// Its name.
    pub name: ClientName,
    /// Its key; without one these are the limits of the client that enrolls under this name.
    pub key: Option<NostrKey>,
    /// What it may do.
    pub limits: Limits,
}

/// What an operator may do. Each may do what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Drain, load and resume machines.
    Cash,
    /// Decide about open items.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Cash => "cash",
            Self::Operator => "operator",
        })
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "cash" => Ok(Self::Cash),
            "operator" => Ok(Self::Operator),
            _ => Err("\"viewer\", \"cash\" or \"operator\" expected"),
        }
    }
}

/// `[[operator]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Its name.
    pub name: ClientName,
    /// Its key.
    pub key: NostrKey,
    /// What it may do.
    pub role: Role,
}

/// Who the holder of a key is. One key may be both. Nobody: a stranger, or who was a client and has invoices still.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// A client of the hold-invoice service, with its limits.
    pub client: Option<(ClientName, Limits)>,
    /// An operator, with its role.
    pub operator: Option<(ClientName, Role)>,
}

/// All keys that may do anything, or that have something left to finish.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    by_key: HashMap<NostrKey, Who>,
}

impl Roster {
    /// The roster of a configuration and of what was enrolled since. A key in the configuration goes before an
    /// enrolled one of the same name.
    #[must_use]
    pub fn new(configured: &[ConfiguredClient], defaults: Limits, operators: &[Operator], book: &Book) -> Self {
        let mut by_key: HashMap<NostrKey, Who> = HashMap::new();
        let limits: BTreeMap<&ClientName, Limits> = configured.iter().map(|one| (&one.name, one.limits)).collect();
        for (name, client) in &book.clients {
            if let Some(key) = client.key
                && configured.iter().all(|one| one.name != *name || one.key.is_none())
            {
                let limits = limits.get(name).copied().unwrap_or(defaults);
                by_key.entry(key).or_default().client = Some((name.clone(), limits));
            }
        }
        for one in configured {
            if let Some(key) = one.key {
                by_key.entry(key).or_default().client = Some((one.name.clone(), one.limits));
            }
        }
        for one in operators {
            by_key.entry(one.key).or_default().operator = Some((one.name.clone(), one.role));
        }
        Self { by_key }
    }

    /// With these keys too, whoever they are: their holders were clients, and have invoices that are not at their end. As
    /// strangers they would share a bound with everybody, and could be kept from settling what they gave goods for.
    #[must_use]
    pub fn with_unfinished(mut self, keys: impl IntoIterator<Item = NostrKey>) -> Self {
        for key in keys {
            self.by_key.entry(key).or_default();
        }
        self
    }

    /// Who this key is; nobody by default.
    #[must_use]
    pub fn who(&self, key: &NostrKey) -> Who {
        self.by_key.get(key).cloned().unwrap_or_default()
    }

    /// How many requests in a minute this key may make; `None` for one that is not known.
    #[must_use]
    pub fn requests_per_minute(&self, key: &NostrKey) -> Option<u32> {
        let who = self.by_key.get(key)?;
        let client = who.client.as_ref().map(|(_, limits)| limits.requests_per_minute);
        let operator = who.operator.as_ref().map(|_| OPERATOR_REQUESTS_PER_MINUTE);
        Some(client.max(operator).unwrap_or(UNFINISHED_REQUESTS_PER_MINUTE))
    }

    /// Whether a key is a client of this name.
    #[must_use]
    pub fn names(&self, name: &ClientName) -> bool {
        let is = |who: &Who| who.client.as_ref().is_some_and(|(client, _)| client == name);
        self.by_key.values().any(is)
    }

    /// Whether this key may do anything, or has something left to finish.
    #[must_use]
    pub fn knows(&self, key: &NostrKey) -> bool {
        self.by_key.contains_key(key)
    }
}
