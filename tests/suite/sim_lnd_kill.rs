//! SIGKILL of a process that runs the simulated LND, again and again under load: no answered change is lost.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::lnrpc::PaymentHash;
use tellerd::proto::lnrpc::lightning_client::LightningClient;
use tellerd::sim::lnd::command::run_lnd;
use tellerd::sim::lnd::control_client::{self, Macaroon};
use tellerd::sim::lnd::{ADMIN_MACAROON, SimLnd, SimLndOptions};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::sim_lnd::{hash, request};

const DIR: &str = "TELLERSIM_TEST_DIR";

/// The process that is killed: this test binary, running only this function.
#[test]
#[ignore = "run by the test below"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    runtime
        .block_on(run_lnd(dir, listen, &SimLndOptions::default()))
        .unwrap();
}

async fn start(dir: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["sim_lnd_kill::child", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, rest)) = line.split_once("simulated LND on ") {
            let address = rest.split(',').next().unwrap().parse().unwrap();
            return (child, address);
        }
    }
    panic!("the child ended without serving");
}

#[tokio::test]
async fn no_answered_add_is_lost_by_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered: Vec<u8> = Vec::new();
    for round in 0..6_u8 {
        let (mut child, address) = start(dir.path()).await;
        let channel = control_client::channel(dir.path(), address).await.unwrap();
        let macaroon = Macaroon::read(dir.path(), ADMIN_MACAROON).unwrap();
        let mut lightning = LightningClient::with_interceptor(channel.clone(), macaroon.clone());
        for n in &answered {
            lightning
                .lookup_invoice(PaymentHash { r_hash: hash(*n) })
                .await
                .unwrap();
        }
        let mut adding = tokio::task::JoinSet::new();
        for n in 0..40 {
            let mut invoices = InvoicesClient::with_interceptor(channel.clone(), macaroon.clone());
            let n = round * 40 + n;
            adding.spawn(async move { invoices.add_hold_invoice(request(n)).await.map(|_| n) });
        }
        // Killed after a different number of answers each time, the rest in flight.
        let enough = usize::from(round) * 5 + 1;
        let mut seen = 0;
        while let Some(result) = adding.join_next().await {
            if let Ok(n) = result.unwrap() {
                answered.push(n);
                seen += 1;
                if seen == enough {
                    child.start_kill().unwrap();
                }
            }
        }
        child.wait().await.unwrap();
        assert!(seen >= enough);
    }
    let sim = SimLnd::open(dir.path(), &SimLndOptions::default()).unwrap();
    let ledger = sim.handle().ledger().unwrap();
    for n in answered {
        assert!(ledger.invoices.iter().any(|record| record.hash.0.to_vec() == hash(n)));
    }
}
