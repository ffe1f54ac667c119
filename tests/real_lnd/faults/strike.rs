//! The faults: how each befalls a stage that stands still in all states, and how it is healed.
//!
//! What must stay true: when a fault returns, everything runs again and a channel can be used; nothing was repaired by hand
//! but what the fault's name says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tellerd::lnd::permissions::PERMISSIONS;
use tellerd::lnd::window::DEFAULT_HOLD_EXPIRY_DELTA;
use tellerd::money::Funds;
use tellerd::proto::lnrpc::invoice::InvoiceState;

use super::stage::{AMOUNT, Stage, State};
use super::verdict::{Final, at_merchant};
use crate::audit::Fate;
use crate::rig::payer::Bill;
use crate::rig::{Net, Node, until};

/// What befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    LndKilled,
    TellerdKilled,
    BothKilled,
    WalletLocked,
    CertificateRotated,
    MacaroonReplaced,
    MacaroonRevoked,
    CustomerAway,
    CustomerStaysAway,
    OutageBeyondWindow,
    OutageBeyondExpiry,
}

/// The root key of the macaroon that is revoked, and of the one that comes after it.
const ROOT_KEYS: [&str; 2] = ["7", "8"];

/// LND goes on chain so many blocks before an HTLC expires whose preimage it knows. Source: facts/lnd.md, section 4.
const BROADCAST_DELTA: u32 = 16;
/// While money is claimed on chain.
const BLOCK_INTERVAL: Duration = Duration::from_millis(200);

/// Bakes tellerd's macaroon into `file`, over what is there: all its rights and nothing else.
pub async fn bake(net: &Net, file: &Path, root_key: &str) {
    let place = file.to_string_lossy();
    let mut words = vec!["bakemacaroon", "--save_to", &place, "--root_key_id", root_key];
    words.extend(PERMISSIONS.iter().map(|permission| permission.uri));
    net.merchant.cli(&words).await.expect("a macaroon");
}

/// Where tellerd's macaroon is.
pub fn macaroon(net: &Net) -> PathBuf {
    net.folder("tellerd").join("tellerd.macaroon")
}

impl Fault {
    /// Tellerd's macaroon as the fault finds it.
    pub async fn equip(self, net: &Net) -> PathBuf {
        let file = macaroon(net);
        bake(net, &file, ROOT_KEYS[0]).await;
        file
    }

    /// From here on LND can not do what it is asked for.
    pub async fn freeze(self, net: &mut Net) {
        match self {
            Self::MacaroonRevoked => {
                let words = ["deletemacaroonid", ROOT_KEYS[0]];
                net.merchant.cli(&words).await.expect("the root key is gone");
            }
            Self::CustomerAway | Self::CustomerStaysAway => {
                net.customer.kill();
                until("the merchant's node misses the customer's", async || {
                    net.merchant.channels().await.iter().all(|lane| !lane.active)
                })
                .await;
                net.merchant.process().stand_still().await;
            }
            _ => net.merchant.process().stand_still().await,
        }
    }

    /// Each cash-out stood where it was to stand. With a revoked macaroon LND answers at once that it adds nothing.
    pub fn found(self, reached: &[String]) {
        let expected = State::ALL.map(State::name);
        let first: &[&str] = match self {
            Self::MacaroonRevoked => &["refused", "quoted", "canceling", "canceled"],
            _ => &["quoted"],
        };
        assert_eq!(reached[1..], expected[1..], "{reached:?}");
        assert!(first.contains(&reached[0].as_str()), "{reached:?}");
    }

    /// Balances are told by other channels afterwards.
    pub const fn closes_the_channel(self) -> bool {
        matches!(self, Self::CustomerStaysAway | Self::OutageBeyondExpiry)
    }

    /// What must have come of it, more than that nothing is lost.
    pub fn outcome(self, state: State, fate: Option<&Fate>) {
        let end = fate.map_or("refused", |fate| fate.view.state.as_str());
        let outage = matches!(self, Self::OutageBeyondWindow | Self::OutageBeyondExpiry);
        let expected: &[&str] = match state {
            State::Canceling => &["canceled"],
            State::Creating if self == Self::MacaroonRevoked => &["refused", "canceled"],
            State::Creating | State::AwaitingPayment if self == Self::CustomerStaysAway => &["canceled"],
            State::Held if outage => &["canceled"],
            State::Dispensing | State::OutcomeUnknown | State::Settling if self == Self::OutageBeyondExpiry => {
                &["needs_operator"]
            }
            // Settled in time when tellerd is heard before LND's own watch over holds begins.
            State::Dispensing | State::OutcomeUnknown | State::Settling if outage => &["needs_operator", "completed"],
            _ => &["completed"],
        };
        assert!(expected.contains(&end), "{self:?} in {state:?} ended as {end}");
        let loss = fate.map_or(0, |fate| fate.view.loss_minor.0);
        let booked = if end == "needs_operator" { AMOUNT } else { 0 };
        assert_eq!(loss, booked, "{self:?} in {state:?}");
    }

    /// Happens, and is healed. What was seen meanwhile, in words.
    pub async fn strike(self, net: &mut Net, stage: &mut Stage) -> String {
        match self {
            Self::LndKilled => lnd_killed(net).await,
            Self::TellerdKilled => tellerd_killed(net, stage).await,
            Self::BothKilled => {
                stage.teller.daemon.kill().await;
                net.merchant.kill();
                net.merchant.start();
                stage.teller.daemon = stage.teller.site.daemon(&[]);
                net.whole().await;
                "both started at the same time".to_owned()
            }
            Self::WalletLocked => wallet_locked(net, stage).await,
            Self::CertificateRotated => certificate_rotated(net).await,
            Self::MacaroonReplaced => macaroon_replaced(net, stage).await,
            Self::MacaroonRevoked => {
                let told = stage.complains("macaroon").await;
                bake(net, &macaroon(net), ROOT_KEYS[1]).await;
                format!("out of service: \"{told}\", until another macaroon was in the file")
            }
            Self::CustomerAway => customer_away(net, stage).await,
            Self::CustomerStaysAway => customer_stays_away(net, stage).await,
            Self::OutageBeyondWindow => outage_beyond_window(net).await,
            Self::OutageBeyondExpiry => outage_beyond_expiry(net).await,
        }
    }
}

impl Net {
    /// All nodes run, are in sync, and have a channel that can be used.
    pub async fn whole(&self) {
        self.synced().await;
        self.reconnect().await;
        self.lane_is_up().await;
    }

    /// Finds blocks up to `height`.
    async fn mine_to(&self, height: u32) {
        let now = self.chain.height().await;
        self.mine(height.saturating_sub(now)).await;
    }
}

/// LND does what it was asked while it stood still.
fn go_on(net: &mut Net) {
    net.merchant.process().signal(Signal::CONT);
}

async fn lnd_killed(net: &mut Net) -> String {
    net.merchant.kill();
    net.merchant.start();
    net.whole().await;
    "LND took its calls up again".to_owned()
}

/// The customer pays while nobody looks.
async fn tellerd_killed(net: &mut Net, stage: &mut Stage) -> String {
    stage.teller.daemon.kill().await;
    go_on(net);
    stage.pay(net, State::AwaitingPayment).await;
    held(net, stage, State::AwaitingPayment).await;
    stage.teller.daemon = stage.teller.site.daemon(&[]);
    "the open invoice was paid while tellerd was away".to_owned()
}

async fn held(net: &Net, stage: &Stage, state: State) {
    let hash = hash(stage, state);
    until("the payment is held", async || {
        at_merchant(net, hash).await.0 == Some(InvoiceState::Accepted)
    })
    .await;
}

fn hash(stage: &Stage, state: State) -> [u8; 32] {
    Bill::read(stage.cell(state).request.as_deref().expect("an invoice")).hash
}

async fn wallet_locked(net: &mut Net, stage: &mut Stage) -> String {
    net.merchant.kill();
    net.merchant.start_locked();
    let told = stage.complains("locked").await;
    net.merchant.unlock().await;
    net.whole().await;
    format!("out of service: \"{told}\", until it was unlocked")
}

async fn certificate_rotated(net: &mut Net) -> String {
    let file = net.merchant.dir().join("tls.cert");
    let before = std::fs::read(&file).unwrap();
    net.merchant.kill();
    for name in ["tls.cert", "tls.key"] {
        std::fs::remove_file(net.merchant.dir().join(name)).unwrap();
    }
    net.merchant.start();
    net.whole().await;
    assert_ne!(before, std::fs::read(&file).unwrap(), "the certificate is another one");
    "tellerd trusts the new certificate without a restart".to_owned()
}

/// Something else is in the file when LND comes back: a macaroon that may only read.
async fn macaroon_replaced(net: &mut Net, stage: &mut Stage) -> String {
    let (ours, weak) = (macaroon(net), net.merchant.macaroons().join("readonly.macaroon"));
    let good = std::fs::read(&ours).unwrap();
    net.merchant.kill();
    std::fs::copy(weak, &ours).unwrap();
    net.merchant.start();
    net.whole().await;
    let told = stage.complains("macaroon").await;
    std::fs::write(&ours, good).unwrap();
    format!("out of service: \"{told}\", until the right one was in the file")
}

const NOT_PAYABLE: [State; 2] = [State::Creating, State::AwaitingPayment];
/// Notes are out, and the payment was held when the customer's node went away.
const EARNED: [State; 4] = [State::Held, State::Dispensing, State::OutcomeUnknown, State::Settling];

/// The customer's node is gone before anything is settled: LND settles, the money does not move.
async fn settled_in_the_dark(net: &mut Net, stage: &mut Stage) {
    go_on(net);
    stage.rest(net, false, &NOT_PAYABLE).await;
    for state in EARNED {
        let told = at_merchant(net, hash(stage, state)).await;
        assert_eq!(told, (Some(InvoiceState::Settled), Final::Pending), "{state:?}");
        let view = stage.view(state).await.expect("tellerd answers");
        assert_eq!(view.funds, Some(Funds::Pending), "{state:?}");
    }
}

async fn customer_away(net: &mut Net, stage: &mut Stage) -> String {
    settled_in_the_dark(net, stage).await;
    net.customer.start();
    net.whole().await;
    "settled at LND while the customer's node was away, no HTLC moved; all did when it came back".to_owned()
}

/// The height at which the first HTLC of those that were held expires.
async fn expiry(node: &Node) -> u32 {
    let lanes = node.channels().await;
    let htlcs = lanes.iter().flat_map(|lane| &lane.pending_htlcs);
    htlcs.map(|htlc| htlc.expiration_height).min().expect("an HTLC")
}

/// Sats that a node waits for on the chain.
async fn in_limbo(node: &Node) -> u64 {
    let told = node.cli(&["pendingchannels"]).await.expect("pending channels");
    let sats = &told["total_limbo_balance"];
    let closing = ["waiting_close_channels", "pending_force_closing_channels"];
    let count = closing
        .iter()
        .filter_map(|name| told[*name].as_array())
        .map(Vec::len)
        .sum::<usize>();
    let sats = sats
        .as_str()
        .and_then(|sats| sats.parse().ok())
        .or_else(|| sats.as_u64());
    sats.unwrap_or_default().max(count as u64)
}

/// Finds block after block until the chain owes nothing to the running nodes.
async fn mine_until_paid(net: &Net) {
    for _ in 0..60 {
        let mut waiting = 0;
        for node in [&net.merchant, &net.customer]
            .into_iter()
            .filter(|node| node.is_running())
        {
            waiting += in_limbo(node).await;
        }
        if waiting == 0 {
            return;
        }
        net.mine(1).await;
        // The time between blocks: wallets publish what spends from one before the next.
        tokio::time::sleep(BLOCK_INTERVAL).await;
    }
    let told: Value = net.merchant.cli(&["pendingchannels"]).await.unwrap_or_default();
    panic!("something is still waited for on the chain: {told}");
}

async fn customer_stays_away(net: &mut Net, stage: &mut Stage) -> String {
    settled_in_the_dark(net, stage).await;
    for state in NOT_PAYABLE {
        stage.give_up(state).await;
    }
    stage.rest(net, false, &[]).await;
    let expiry = expiry(&net.merchant).await;
    net.mine_to(expiry - BROADCAST_DELTA).await;
    mine_until_paid(net).await;
    let claimed = net.chain.height().await;
    for state in EARNED {
        let told = at_merchant(net, hash(stage, state)).await;
        let on_chain = Final::Settled { offchain: false };
        assert_eq!(told, (Some(InvoiceState::Settled), on_chain), "{state:?}");
    }
    net.mine_to(expiry + 1).await;
    net.customer.start();
    net.synced().await;
    mine_until_paid(net).await;
    net.open_channel().await;
    format!(
        "claimed on chain by height {claimed}, {} blocks before the expiry",
        i64::from(expiry) - i64::from(claimed)
    )
}

async fn outage_beyond_window(net: &mut Net) -> String {
    let expiry = expiry(&net.customer).await;
    net.merchant.kill();
    net.mine_to(expiry - DEFAULT_HOLD_EXPIRY_DELTA + 1).await;
    net.merchant.start();
    net.whole().await;
    "LND came back one block after it should have canceled".to_owned()
}

async fn outage_beyond_expiry(net: &mut Net) -> String {
    let expiry = expiry(&net.customer).await;
    net.merchant.kill();
    net.mine_to(expiry + 1).await;
    mine_until_paid(net).await;
    net.merchant.start();
    net.synced().await;
    mine_until_paid(net).await;
    net.open_channel().await;
    "the customer took the money back on chain before LND came back".to_owned()
}
