//! The rig: btcd on simnet, the merchant's lnd and the customer's, a channel between them; all on 127.0.0.1.
//!
//! Used by the tests against a real LND and by the benchmark on it. What must stay true: every wait has one bound and
//! names what it waited for; every process ends with this one. Source: fact sheet on LND, section 7.

#![allow(dead_code, reason = "the benchmark needs less of it than the tests")]

mod chain;
mod node;
pub mod payer;
pub mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tellerd::proto::lnrpc::WalletState;
use tempfile::TempDir;
use tokio::time::Instant;

pub use chain::Chain;
pub use node::{Authed, Node};

/// Blocks that activate segwit on simnet, and then some.
const FIRST_BLOCKS: u32 = 400;
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// The channel's capacity, and what of it begins at the merchant.
pub const CAPACITY_SATS: u64 = 16_000_000;
/// See [`CAPACITY_SATS`].
pub const PUSHED_SATS: u64 = 4_000_000;

/// A network of two nodes.
pub struct Net {
    /// Everything of it; removed at the end, kept when a test fails.
    dir: Option<TempDir>,
    /// The chain.
    pub chain: Chain,
    /// tellerd's node.
    pub merchant: Node,
    /// The node of all customers.
    pub customer: Node,
    /// Another payer, once a test wants one.
    pub stranger: Option<Node>,
}

/// The folder with lnd, lncli, btcd and btcctl.
pub fn binaries() -> Result<PathBuf, String> {
    let told = "TELLERD_REAL_LND does not name the folder with lnd and btcd: start with tests/real_lnd/run.sh";
    let folder = PathBuf::from(std::env::var_os("TELLERD_REAL_LND").ok_or(told)?);
    for program in ["lnd", "lncli", "btcd", "btcctl"] {
        if !folder.join(program).is_file() {
            return Err(format!(
                "{} has no {program}: start with tests/real_lnd/run.sh",
                folder.display()
            ));
        }
    }
    Ok(folder)
}

/// The pause between two looks at a condition.
pub async fn breath() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Returns once `condition` holds. Panics with `what` when it does not come to that.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    until_or(what, String::new, condition).await;
}

/// [`until`], with what is known at the end of the wait.
pub async fn until_or(what: &str, known: impl Fn() -> String, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "waited too long: {what}\n{}", known());
        breath().await;
    }
}

impl Net {
    /// Brings everything up: both nodes are in sync and a channel is open. `merchant` are options of the merchant's lnd.
    pub async fn up(merchant: &[&str]) -> Self {
        let bin = binaries().unwrap_or_else(|why| panic!("{why}"));
        let dir = tempfile::Builder::new()
            .prefix("tellerd-real-lnd-")
            .tempdir()
            .expect("a folder");
        let mut net = Self::new(&bin, dir, merchant);
        net.chain.start(None).await;
        // Blocks are to be paid to the customer, so its wallet comes first. It is not there when btcd is restarted with
        // its address: an lnd that loses its chain while it syncs for the first time may wait for ever.
        net.customer.start_locked();
        net.customer.init_wallet().await;
        net.customer.reaches(WalletState::RpcActive).await;
        let told = net.customer.cli(&["newaddress", "p2wkh"]).await.expect("an address");
        let miner = told["address"].as_str().expect("an address").to_owned();
        net.customer.stop().await;
        net.chain.stop().await;
        net.chain.start(Some(&miner)).await;
        net.chain.generate(FIRST_BLOCKS).await;
        net.customer.start();
        net.merchant.start_locked();
        net.merchant.init_wallet().await;
        net.synced().await;
        net.open_channel().await;
        net
    }

    fn new(bin: &Path, dir: TempDir, merchant: &[&str]) -> Self {
        let chain = Chain::new(bin, &dir.path().join("btcd"));
        let customer = Node::new("customer", bin, &dir.path().join("customer"), &chain, &[]);
        let merchant = Node::new("merchant", bin, &dir.path().join("merchant"), &chain, merchant);
        Self {
            dir: Some(dir),
            chain,
            merchant,
            customer,
            stranger: None,
        }
    }

    /// A folder of its own in the network's.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.as_ref().expect("not ended").path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Opens a channel from the customer to the merchant, with money on both sides.
    pub async fn open_channel(&self) {
        let merchant = self.merchant.pubkey().await;
        self.reconnect().await;
        let (capacity, pushed) = (CAPACITY_SATS.to_string(), PUSHED_SATS.to_string());
        let words = [
            "openchannel",
            "--node_key",
            &merchant,
            "--local_amt",
            &capacity,
            "--push_amt",
            &pushed,
        ];
        self.customer.cli(&words).await.expect("a channel");
        self.mine(6).await;
        self.lane_is_up().await;
    }

    /// The two nodes are peers.
    pub async fn reconnect(&self) {
        let merchant = self.merchant.pubkey().await;
        let peer = format!("{merchant}@{}", self.merchant.peer_address());
        until("the nodes are peers", async || {
            let told = self.customer.cli(&["connect", &peer]).await;
            // Connected already is what is wanted.
            told.is_ok() || told.is_err_and(|why| why.contains("already connected"))
        })
        .await;
    }

    /// Both see a channel that can be used.
    pub async fn lane_is_up(&self) {
        until("the channel can be used", async || {
            let mut usable = true;
            for node in [&self.merchant, &self.customer] {
                usable &= node.channels().await.iter().any(|lane| lane.active);
            }
            usable
        })
        .await;
        // The customer's wallet finds its ways in a graph that learns of a new channel by gossip.
        let merchant = self.merchant.pubkey().await;
        until("the customer finds a route", async || {
            self.customer.cli(&["queryroutes", &merchant, "1000"]).await.is_ok()
        })
        .await;
    }

    /// Finds blocks; returns once the running nodes have seen them.
    pub async fn mine(&self, blocks: u32) {
        self.chain.generate(blocks).await;
        self.synced().await;
    }

    /// Returns once the running nodes are fully started and at the chain's height.
    pub async fn synced(&self) {
        let height = self.chain.height().await;
        for node in self.nodes().filter(|node| node.is_running()) {
            node.reaches(WalletState::ServerActive).await;
            until(&format!("{} is at height {height}", node.name), async || {
                node.info()
                    .await
                    .is_some_and(|info| info.synced_to_chain && info.block_height >= height)
            })
            .await;
        }
    }

    /// Brings up a second payer with a channel of its own to the merchant. Returns at once when there is one.
    pub async fn invite_stranger(&mut self) {
        const SATS: &str = "4000000";
        if self.stranger.is_some() {
            return;
        }
        let bin = binaries().unwrap_or_else(|why| panic!("{why}"));
        let mut stranger = Node::new("stranger", &bin, &self.folder("stranger"), &self.chain, &[]);
        stranger.start_locked();
        stranger.init_wallet().await;
        let stranger = self.stranger.insert(stranger);
        stranger.reaches(WalletState::RpcActive).await;
        let told = stranger.cli(&["newaddress", "p2wkh"]).await.expect("an address");
        let address = told["address"].as_str().expect("an address");
        let send = ["sendcoins", "--force", "--addr", address, "--amt", SATS];
        self.customer.cli(&send).await.expect("coins");
        self.mine(1).await;
        let stranger = self.stranger.as_ref().expect("it is there");
        let merchant = self.merchant.info().await.expect("the merchant's node answers");
        let peer = self.merchant.peer_address().to_string();
        let open = [
            "openchannel",
            "--connect",
            &peer,
            "--node_key",
            &merchant.identity_pubkey,
            "--local_amt",
            "3000000",
        ];
        until("a stranger opens a channel", async || stranger.cli(&open).await.is_ok()).await;
        self.mine(6).await;
        until("the stranger's channel can be used", async || {
            let all = self.merchant.channels().await;
            let active = all.iter().filter(|lane| lane.active).count() > 1;
            active && stranger.channels().await.iter().any(|lane| lane.active)
        })
        .await;
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.merchant).chain(self.payers())
    }

    /// The nodes that pay the merchant.
    pub fn payers(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.customer).chain(&self.stranger)
    }

    /// Sats of all payers in open channels, as their own nodes count them: those in HTLCs on their way are not in it.
    pub async fn customer_sats(&self) -> i64 {
        let mut sum = 0;
        for node in self.payers() {
            sum += node.local_sats().await;
        }
        sum
    }

    /// Sats of the merchant in open channels, as its own node counts them.
    pub async fn merchant_sats(&self) -> i64 {
        self.merchant.local_sats().await
    }

    /// Its folder stays from now on.
    fn keep(&mut self) {
        if let Some(dir) = self.dir.take() {
            println!("logs are kept in {}", dir.keep().display());
        }
    }

    /// Ends all. Its folder stays, for a look at the logs, when `keep`.
    pub async fn down(mut self, keep: bool) {
        self.merchant.stop().await;
        self.customer.stop().await;
        if let Some(stranger) = &mut self.stranger {
            stranger.stop().await;
        }
        self.chain.stop().await;
        if keep {
            self.keep();
        }
    }
}

impl Drop for Net {
    /// One that could not be brought up is looked at too.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}
