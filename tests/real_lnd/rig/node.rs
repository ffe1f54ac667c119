//! One lnd: started, stopped, killed, locked; its files, its command line, its channel for raw gRPC.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tellerd::proto::lnrpc::lightning_client::LightningClient;
use tellerd::proto::lnrpc::state_client::StateClient;
use tellerd::proto::lnrpc::wallet_unlocker_client::WalletUnlockerClient;
use tellerd::proto::lnrpc::{
    Channel as Lane, GenSeedRequest, GetInfoRequest, GetInfoResponse, GetStateRequest, InitWalletRequest,
    ListChannelsRequest, UnlockWalletRequest, WalletState,
};
use tellerd::sim::lnd::control_client::{self, Macaroon};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::chain::{Chain, free_port};
use super::process::{Process, last_words, output};
use super::until_or;

const PASSWORD: &str = "a wallet for tests";

/// A connection with a macaroon.
pub type Authed = InterceptedService<Channel, Macaroon>;

/// One lnd in its folder.
pub struct Node {
    /// `merchant` or `customer`.
    pub name: &'static str,
    bin: PathBuf,
    dir: PathBuf,
    rpc: u16,
    p2p: u16,
    /// For this chain, and what a test wants beside it. Takes effect at the next start.
    pub options: Vec<String>,
    process: Option<Process>,
}

impl Node {
    /// A node that was not started yet.
    pub fn new(name: &'static str, bin: &Path, dir: &Path, chain: &Chain, options: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("folder of lnd");
        let mut all = chain.for_node();
        all.extend(options.iter().map(|option| (*option).to_owned()));
        Self {
            name,
            bin: bin.to_owned(),
            dir: dir.to_owned(),
            rpc: free_port(),
            p2p: free_port(),
            options: all,
            process: None,
        }
    }

    /// Where it answers gRPC.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.rpc))
    }

    /// Where its peers reach it.
    pub fn peer_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.p2p))
    }

    /// Its folder, with `tls.cert` and `tls.key`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder with the macaroons it makes itself: `admin.macaroon`, `readonly.macaroon`, `invoice.macaroon`.
    pub fn macaroons(&self) -> PathBuf {
        self.dir.join("data/chain/bitcoin/simnet")
    }

    /// Starts it with its wallet unlocked; returns at once.
    pub fn start(&mut self) {
        let password = self.dir.join("password");
        std::fs::write(&password, PASSWORD).expect("password file");
        self.launch(&[format!("--wallet-unlock-password-file={}", password.display())]);
    }

    /// Starts it with its wallet locked; returns at once.
    pub fn start_locked(&mut self) {
        self.launch(&[]);
    }

    fn launch(&mut self, more: &[String]) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let dir = self.dir.display();
        let mut arguments = vec![
            format!("--lnddir={dir}"),
            format!("--configfile={dir}/none.conf"),
            format!("--alias={}", self.name),
            "--bitcoin.simnet".to_owned(),
            format!("--rpclisten=127.0.0.1:{}", self.rpc),
            format!("--listen=127.0.0.1:{}", self.p2p),
        ];
        let fixed = [
            "--norest",
            "--nobootstrap",
            "--trickledelay=50",
            "--gossip.sub-batch-delay=5ms",
            "--db.batch-commit-interval=10ms",
            "--bitcoin.defaultchanconfs=1",
            "--bitcoin.defaultremotedelay=4",
            "--payments-expiration-grace-period=1s",
            // What became of each HTLC of a customer is to be seen afterwards.
            "--keep-failed-payment-attempts",
            // Simnet has nobody to tell a fee.
            "--fee.min-update-timeout=1h",
        ];
        arguments.extend(fixed.map(str::to_owned));
        arguments.extend(self.options.iter().cloned());
        arguments.extend(more.iter().cloned());
        std::fs::write(self.dir.join("none.conf"), "").expect("configuration of lnd");
        self.process = Some(Process::start(
            &self.bin.join("lnd"),
            &arguments,
            &self.dir,
            &self.log(),
        ));
    }

    fn log(&self) -> PathBuf {
        self.dir.join("out.log")
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        last_words(&self.log())
    }

    /// It runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends it in good order.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate().await;
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node runs")
    }

    /// Makes the wallet of a new node.
    pub async fn init_wallet(&self) {
        self.reaches(WalletState::NonExisting).await;
        let channel = self.channel().await.expect("lnd answers");
        let mut unlocker = WalletUnlockerClient::new(channel);
        let seed = unlocker.gen_seed(GenSeedRequest {}).await.expect("a seed").into_inner();
        let request = InitWalletRequest {
            wallet_password: PASSWORD.into(),
            cipher_seed_mnemonic: seed.cipher_seed_mnemonic,
        };
        unlocker.init_wallet(request).await.expect("a wallet");
    }

    /// Unlocks the wallet.
    pub async fn unlock(&self) {
        let channel = self.channel().await.expect("lnd answers");
        let request = UnlockWalletRequest {
            wallet_password: PASSWORD.into(),
        };
        WalletUnlockerClient::new(channel)
            .unlock_wallet(request)
            .await
            .expect("the password is right");
    }

    /// A new connection that trusts the node's certificate as it is now.
    pub async fn channel(&self) -> Result<Channel, String> {
        control_client::channel(&self.dir, self.address())
            .await
            .map_err(|error| error.to_string())
    }

    /// One of the node's own macaroons.
    pub fn macaroon(&self, name: &str) -> Macaroon {
        Macaroon::read(&self.macaroons(), name).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// A client with the admin macaroon on a connection of its own.
    pub async fn lightning(&self) -> Result<LightningClient<Authed>, String> {
        let channel = self.channel().await?;
        Ok(LightningClient::with_interceptor(
            channel,
            self.macaroon("admin.macaroon"),
        ))
    }

    /// How far it has started; `None` while nothing answers.
    pub async fn state(&self) -> Option<WalletState> {
        let channel = self.channel().await.ok()?;
        let answer = StateClient::new(channel).get_state(GetStateRequest {}).await.ok()?;
        Some(answer.into_inner().state())
    }

    /// Returns once it has this state, or more.
    pub async fn reaches(&self, wanted: WalletState) {
        let rank = |state: WalletState| {
            if state == WalletState::WaitingToStart {
                -1
            } else {
                state as i32
            }
        };
        let what = format!("{} reaches {wanted:?}", self.name);
        let log = || self.last_words();
        until_or(&what, log, async || {
            self.state().await.is_some_and(|state| rank(state) >= rank(wanted))
        })
        .await;
    }

    /// What it says of itself.
    pub async fn info(&self) -> Option<GetInfoResponse> {
        let answer = self.lightning().await.ok()?.get_info(GetInfoRequest {}).await.ok()?;
        Some(answer.into_inner())
    }

    /// Its identity.
    pub async fn pubkey(&self) -> String {
        let info = self.info().await;
        info.unwrap_or_else(|| panic!("{} does not answer", self.name))
            .identity_pubkey
    }

    /// Its channels.
    pub async fn channels(&self) -> Vec<Lane> {
        let mut client = self.lightning().await.expect("lnd answers");
        let request = ListChannelsRequest { active_only: false };
        client
            .list_channels(request)
            .await
            .expect("channels")
            .into_inner()
            .channels
    }

    /// Sats of its own in open channels.
    pub async fn local_sats(&self) -> i64 {
        self.channels().await.iter().map(|lane| lane.local_balance).sum()
    }

    /// `lncli`, and what it prints.
    pub async fn cli(&self, words: &[&str]) -> Result<Value, String> {
        let mut arguments = vec![
            format!("--lnddir={}", self.dir.display()),
            "--network=simnet".to_owned(),
            format!("--rpcserver={}", self.address()),
        ];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        let told = output(&self.bin.join("lncli"), &arguments, &self.dir).await?;
        // Some commands answer with nothing, or with words.
        Ok(serde_json::from_str(&told).unwrap_or(Value::String(told)))
    }
}
