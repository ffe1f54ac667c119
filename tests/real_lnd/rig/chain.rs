//! btcd on simnet: a chain whose blocks come on command, all of them paying one wallet.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::process::{Process, output};
use super::until;

const USER: &str = "rig";
const PASSWORD: &str = "simnet";

/// The chain.
pub struct Chain {
    bin: PathBuf,
    dir: PathBuf,
    rpc: u16,
    p2p: u16,
    process: Option<Process>,
}

/// A port that was free a moment ago. Those of nodes must stay the same over restarts, so the system can not choose
/// them anew each time.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Chain {
    /// A chain that was not started yet.
    pub fn new(bin: &Path, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("folder of btcd");
        Self {
            bin: bin.to_owned(),
            dir: dir.to_owned(),
            rpc: free_port(),
            p2p: free_port(),
            process: None,
        }
    }

    /// Starts btcd, which pays for blocks to `miner`, once there is one.
    pub async fn start(&mut self, miner: Option<&str>) {
        let dir = self.dir.display();
        let mut arguments = vec![
            "--simnet".to_owned(),
            format!("--datadir={dir}/data"),
            format!("--logdir={dir}/logs"),
            format!("--configfile={dir}/none.conf"),
            format!("--rpcuser={USER}"),
            format!("--rpcpass={PASSWORD}"),
            format!("--rpccert={dir}/rpc.cert"),
            format!("--rpckey={dir}/rpc.key"),
            format!("--rpclisten=127.0.0.1:{}", self.rpc),
            format!("--listen=127.0.0.1:{}", self.p2p),
            "--txindex".to_owned(),
            "--nobanning".to_owned(),
            "--nostalldetect".to_owned(),
            "--rpcmaxwebsockets=50".to_owned(),
            "--rpcmaxclients=50".to_owned(),
        ];
        arguments.extend(miner.map(|address| format!("--miningaddr={address}")));
        std::fs::write(self.dir.join("none.conf"), "").expect("configuration of btcd");
        let log = self.dir.join("out.log");
        self.process = Some(Process::start(&self.bin.join("btcd"), &arguments, &self.dir, &log));
        until("btcd answers", async || self.ctl(&["getblockcount"]).await.is_ok()).await;
    }

    /// Ends btcd in good order.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate().await;
        }
    }

    /// btcd stands still: nothing is answered until [`Chain::resume`].
    pub fn pause(&self) {
        self.process.as_ref().expect("btcd runs").signal(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.process.as_ref().expect("btcd runs").signal(Signal::CONT);
    }

    /// Finds `blocks` blocks at once. Nodes need a moment to see them.
    pub async fn generate(&self, blocks: u32) {
        self.ctl(&["generate", &blocks.to_string()])
            .await
            .expect("blocks are found");
    }

    /// The best height.
    pub async fn height(&self) -> u32 {
        let told = self.ctl(&["getblockcount"]).await.expect("btcd answers");
        told.trim().parse().expect("a height")
    }

    /// Some wait to be in a block.
    pub async fn has_transactions(&self) -> bool {
        let told = self.ctl(&["getrawmempool"]).await.expect("btcd answers");
        told.trim() != "[]"
    }

    /// What a node needs to follow this chain.
    pub fn for_node(&self) -> Vec<String> {
        vec![
            "--bitcoin.node=btcd".to_owned(),
            format!("--btcd.rpchost=127.0.0.1:{}", self.rpc),
            format!("--btcd.rpcuser={USER}"),
            format!("--btcd.rpcpass={PASSWORD}"),
            format!("--btcd.rpccert={}/rpc.cert", self.dir.display()),
        ]
    }

    async fn ctl(&self, words: &[&str]) -> Result<String, String> {
        let mut arguments = vec![
            "--simnet".to_owned(),
            format!("--configfile={}/none.conf", self.dir.display()),
            format!("--rpcuser={USER}"),
            format!("--rpcpass={PASSWORD}"),
            format!("--rpcserver=127.0.0.1:{}", self.rpc),
            format!("--rpccert={}/rpc.cert", self.dir.display()),
        ];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        output(&self.bin.join("btcctl"), &arguments, &self.dir).await
    }
}
