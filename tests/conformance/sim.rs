//! The simulated LND as a [`World`]: driven by its control handle, as docs/SIMULATED_LND.md says, and by raw gRPC.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tellerd::proto::lnrpc::WalletState;
use tellerd::sim::lnd::control_client;
use tellerd::sim::lnd::node::record::Outcome;
use tellerd::sim::lnd::{Fault, Finality, PayOptions, SimHandle, SimLnd, SimLndOptions};
use tellerd::time::{ManualClock, UnixMs};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{Ending, MAX_HTLCS, Share, World};

/// When the simulated clock begins.
const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// A served node.
pub struct Sim {
    dir: tempfile::TempDir,
    options: SimLndOptions,
    clock: Arc<ManualClock>,
    address: SocketAddr,
    handle: SimHandle,
    serving: Mutex<JoinHandle<()>>,
}

impl Sim {
    /// A node without history.
    pub async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let options = SimLndOptions {
            max_htlcs: MAX_HTLCS,
            clock: clock.clone(),
            ..SimLndOptions::default()
        };
        let dir = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let node = SimLnd::open(dir.path(), &options).expect("a simulated node");
        let serve = node.serve(listener);
        Self {
            handle: node.handle(),
            serving: Mutex::new(tokio::spawn(async move { serve.await.expect("it serves") })),
            dir,
            options,
            clock,
            address,
        }
    }

    fn to(&self, state: WalletState) {
        self.handle.inject(Fault::SetState(state)).expect("a state");
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.serving.lock().expect("one thread").abort();
    }
}

#[async_trait(?Send)]
impl World for Sim {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn channel(&self) -> Option<Channel> {
        control_client::channel(self.dir.path(), self.address).await.ok()
    }

    async fn macaroon(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(file)).expect("a macaroon")
    }

    async fn send(&self, payment_request: &str, share: Share) {
        let options = PayOptions {
            amount_msat: Some(share.total_msat),
            parts: share.of,
            missing_parts: share.of - 1,
            final_cltv_delta: Some(share.cltv),
            ..PayOptions::default()
        };
        self.handle.pay(payment_request, &options).expect("a payment");
    }

    async fn sent(&self, hash: [u8; 32]) -> Vec<String> {
        let payments = self.handle.ledger().expect("a ledger").payments;
        let of_hash = payments.into_iter().filter(|payment| payment.order.hash.0 == hash);
        of_hash
            .flat_map(|payment| payment.htlcs)
            .map(|htlc| match htlc.outcome {
                Outcome::Held => "in flight".to_owned(),
                Outcome::Settled { .. } => "settled".to_owned(),
                Outcome::Refunded { reason, .. } => {
                    let (failure, _) = reason.as_str().split_once(':').expect("a name and a detail");
                    failure.to_owned()
                }
            })
            .collect()
    }

    async fn mine(&self, blocks: u32) {
        self.handle.advance_blocks(blocks).expect("blocks");
    }

    async fn height(&self) -> u32 {
        self.handle.ledger().expect("a ledger").height
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.handle.tick().expect("it serves");
    }

    async fn end(&self, how: Ending) {
        match how {
            // What streams are told is still on its way: they are cut when the node starts again.
            Ending::Clean => self.handle.inject(Fault::DropStreams { error: None }).expect("a fault"),
            Ending::Killed => self.to(WalletState::WaitingToStart),
        }
    }

    async fn start_locked(&self) {
        self.to(WalletState::Locked);
    }

    async fn unlock(&self) {
        self.to(WalletState::Unlocked);
    }

    async fn ready(&self) {
        self.to(WalletState::ServerActive);
    }

    async fn rpc_active(&self, blocks: u32) {
        self.to(WalletState::WaitingToStart);
        self.mine(blocks).await;
        self.to(WalletState::RpcActive);
    }

    async fn go_on(&self) {
        self.to(WalletState::ServerActive);
    }

    async fn mine_alone(&self, blocks: u32) {
        self.to(WalletState::WaitingToStart);
        self.mine(blocks).await;
    }

    async fn confirm(&self) {
        self.mine(6).await;
    }

    async fn payer_stops(&self) {
        self.handle.inject(Fault::Finality(Finality::Hold)).expect("a fault");
    }

    async fn payer_starts(&self) {
        self.handle.inject(Fault::Finality(Finality::Release)).expect("a fault");
    }
}
