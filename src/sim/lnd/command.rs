//! The commands `tellerd emulate lnd`, `emulate pay` and `emulate control`, without their argument parsing.
//!
//! Called by the CLI. They print to standard output what an operator or a customer would want to see.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::control_client::{self, Control};
use super::{ADMIN_MACAROON, PayOptions, SimError, SimLnd, SimLndOptions, TLS_CERT};
use crate::money::Msat;
use crate::proto::lnrpc::{WalletState, invoice::InvoiceState};
use crate::proto::tellersim::finality::Order as FinalityOrder;
use crate::proto::tellersim::payment::Status;
use crate::proto::tellersim::{
    AdvanceBlocksRequest, DropStreams, Fail, Fault, Finality, Hang, LedgerRequest, LoseReply, PayRequest, Payment,
    PaymentId, Release, Restart, SetBlockIntervalRequest, SetState, SetSynced, Slow, fault::Kind, ledger_entry::Entry,
};

/// Prints a line. Whoever read it may have left; the node goes on without.
fn say(line: fmt::Arguments) {
    _ = writeln!(io::stdout(), "{line}");
}

/// Runs a simulated LND in `dir` on `listen` until SIGINT or SIGTERM.
pub async fn run_lnd(dir: &Path, listen: SocketAddr, options: &SimLndOptions) -> Result<(), SimError> {
    let sim = SimLnd::open(dir, options)?;
    let listener = TcpListener::bind(listen).map_err(SimError::Listen)?;
    let address = listener.local_addr().map_err(SimError::Listen)?;
    say(format_args!(
        "simulated LND on {address}, regtest, node {}",
        sim.engine.signer.pubkey()
    ));
    say(format_args!("  certificate {}", dir.join(TLS_CERT).display()));
    say(format_args!("  macaroon    {}", dir.join(ADMIN_MACAROON).display()));
    say(format_args!(
        "  height {}, hold expiry delta {}",
        sim.engine.mine(0)?,
        options.hold_expiry_delta
    ));
    let mut terminate = signal(SignalKind::terminate()).map_err(SimError::Listen)?;
    tokio::select! {
        served = sim.serve(listener) => served,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Pays `invoice` at the simulated LND in `dir` on `address` and prints what the customer sees.
/// Returns whether the payment succeeded; `false` means the money is back.
pub async fn run_pay(dir: &Path, address: SocketAddr, invoice: &str, options: &PayOptions) -> Result<bool, SimError> {
    let mut control = control_client::connect(dir, address).await?;
    let request = PayRequest {
        payment_request: invoice.to_owned(),
        amount_msat: options.amount_msat.unwrap_or_default(),
        parts: options.parts,
        missing_parts: options.missing_parts,
        after_ms: u64::try_from(options.after.as_millis()).unwrap_or(u64::MAX),
        final_cltv_delta: options.final_cltv_delta.unwrap_or_default(),
        wait: false,
    };
    let id = control.pay(request).await?.into_inner().id;
    let mut shown = String::new();
    loop {
        match follow(&mut control, id, &mut shown).await {
            Ok(Some(payment)) => return Ok(payment.status() == Status::Succeeded),
            Ok(None) => say(format_args!("connection lost; trying again")),
            Err(status) => say(format_args!("connection lost ({}); trying again", status.message())),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Prints each change of a payment; returns it at its end, `None` when the connection ended first.
async fn follow(control: &mut Control, id: u64, shown: &mut String) -> Result<Option<Payment>, tonic::Status> {
    let mut updates = control.follow_payment(PaymentId { id }).await?.into_inner();
    while let Some(payment) = updates.message().await? {
        let text = describe(&payment);
        if text != *shown {
            say(format_args!("{text}"));
            *shown = text;
        }
        if matches!(payment.status(), Status::Succeeded | Status::Failed) {
            return Ok(Some(payment));
        }
    }
    Ok(None)
}

/// A payment in the customer's words.
fn describe(payment: &Payment) -> String {
    match payment.status() {
        Status::Waiting => format!("waiting to pay {}", Msat(payment.amount_msat)),
        Status::InFlight if payment.held_msat < payment.amount_msat => {
            format!(
                "held: {} of {}, the rest has not arrived",
                Msat(payment.held_msat),
                Msat(payment.amount_msat)
            )
        }
        Status::InFlight => format!("held: {}", Msat(payment.held_msat)),
        Status::Succeeded => format!("succeeded: paid {}", Msat(payment.settled_msat)),
        Status::Failed => format!(
            "failed, {} back: {}",
            Msat(payment.refunded_msat),
            payment.failure_reason
        ),
    }
}

/// Carries out one command for the simulated LND in `dir` on `address`; [`CONTROL_HELP`] lists them.
pub async fn run_control(dir: &Path, address: SocketAddr, words: &[String]) -> Result<(), SimError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let order =
        parse(&words).ok_or_else(|| SimError::BadFault(format!("not understood. Commands:\n{CONTROL_HELP}")))?;
    let mut control = control_client::connect(dir, address).await?;
    match order {
        Order::Advance(blocks) => {
            let chain = control.advance_blocks(AdvanceBlocksRequest { blocks }).await?;
            say(format_args!("height {}", chain.into_inner().height));
        }
        Order::Interval(interval_ms) => {
            control
                .set_block_interval(SetBlockIntervalRequest { interval_ms })
                .await?;
        }
        Order::Payment(id) => say(format_args!(
            "{}",
            describe(control.get_payment(PaymentId { id }).await?.get_ref())
        )),
        Order::Ledger => print_ledger(&mut control).await?,
        Order::Fault(kind) => {
            control.inject_fault(Fault { kind: Some(kind) }).await?;
        }
    }
    Ok(())
}

/// The commands of [`run_control`].
pub const CONTROL_HELP: &str = "\
  advance BLOCKS                  mine blocks
  interval MS                     mine a block every MS; 0 stops
  payment ID                      a payment as the customer sees it
  ledger                          all invoices and payments
  restart DOWN_MS [STARTUP_MS]    cut all connections, refuse new ones, come back
  hang [MS [METHOD]]              calls get no answer; 0 or nothing: until release
  release                         end the hang
  drop-streams [ERROR]            end all streams with OK, or with this error
  lock | unlock                   the wallet
  state NAME                      WAITING_TO_START LOCKED UNLOCKED RPC_ACTIVE SERVER_ACTIVE
  out-of-sync | in-sync           with the chain
  finality hold|release|lose      the payers' peer goes, is back, or took back on chain what was settled meanwhile
  slow MS                         delay every answer; 0 ends it
  lose-reply METHOD [COUNT]       the call takes effect, its answer is lost
  fail METHOD COUNT CODE TEXT     the call fails with this gRPC code and text";

enum Order {
    Advance(u32),
    Interval(u64),
    Payment(u64),
    Ledger,
    Fault(Kind),
}

fn parse(words: &[&str]) -> Option<Order> {
    let fault = match words {
        ["advance", blocks] => return Some(Order::Advance(blocks.parse().ok()?)),
        ["interval", ms] => return Some(Order::Interval(ms.parse().ok()?)),
        ["payment", id] => return Some(Order::Payment(id.parse().ok()?)),
        ["ledger"] => return Some(Order::Ledger),
        ["restart", down] => Kind::Restart(Restart {
            down_ms: down.parse().ok()?,
            startup_ms: 0,
        }),
        ["restart", down, startup] => Kind::Restart(Restart {
            down_ms: down.parse().ok()?,
            startup_ms: startup.parse().ok()?,
        }),
        ["hang"] => Kind::Hang(Hang::default()),
        ["hang", ms] => Kind::Hang(Hang {
            ms: ms.parse().ok()?,
            method: String::new(),
        }),
        ["hang", ms, method] => Kind::Hang(Hang {
            ms: ms.parse().ok()?,
            method: (*method).into(),
        }),
        ["release"] => Kind::Release(Release {}),
        ["drop-streams", error @ ..] => Kind::DropStreams(DropStreams { error: error.join(" ") }),
        ["lock"] => Kind::SetState(SetState {
            state: WalletState::Locked.into(),
        }),
        ["unlock"] => Kind::SetState(SetState {
            state: WalletState::ServerActive.into(),
        }),
        ["state", name] => Kind::SetState(SetState {
            state: WalletState::from_str_name(name)?.into(),
        }),
        ["out-of-sync"] => Kind::SetSynced(SetSynced { synced: false }),
        ["in-sync"] => Kind::SetSynced(SetSynced { synced: true }),
        ["finality", order] => Kind::Finality(Finality {
            order: match *order {
                "hold" => FinalityOrder::Hold.into(),
                "release" => FinalityOrder::Release.into(),
                "lose" => FinalityOrder::Lose.into(),
                _ => return None,
            },
        }),
        ["slow", ms] => Kind::Slow(Slow { ms: ms.parse().ok()? }),
        ["lose-reply", method] => Kind::LoseReply(LoseReply {
            method: (*method).into(),
            count: 1,
        }),
        ["lose-reply", method, count] => Kind::LoseReply(LoseReply {
            method: (*method).into(),
            count: count.parse().ok()?,
        }),
        ["fail", method, count, code, text @ ..] => Kind::Fail(Fail {
            method: (*method).into(),
            count: count.parse().ok()?,
            code: code.parse().ok()?,
            text: text.join(" "),
        }),
        _ => return None,
    };
    Some(Order::Fault(fault))
}

async fn print_ledger(control: &mut Control) -> Result<(), SimError> {
    let mut entries = control.ledger(LedgerRequest {}).await?.into_inner();
    while let Some(entry) = entries.message().await? {
        match entry.entry {
            Some(Entry::Summary(sum)) => say(format_args!(
                "height {}; sent {} = held {} + settled {} + refunded {}",
                sum.height,
                Msat(sum.sent_msat),
                Msat(sum.held_msat),
                Msat(sum.settled_msat),
                Msat(sum.refunded_msat),
            )),
            Some(Entry::Invoice(record)) => {
                let invoice = record.invoice.unwrap_or_default();
                let state = |state| InvoiceState::try_from(state).map_or("?", |state| state.as_str_name());
                let history = record
                    .history
                    .iter()
                    .map(|entry| format!("{} {}", state(entry.state), entry.cause));
                let history = history.collect::<Vec<_>>().join(", ");
                say(format_args!(
                    "invoice {} {} msat: {history}",
                    hex::encode(&invoice.r_hash),
                    invoice.value_msat
                ));
            }
            Some(Entry::Payment(payment)) => {
                say(format_args!(
                    "payment {} of {}: {}",
                    payment.id,
                    hex::encode(&payment.payment_hash),
                    describe(&payment)
                ));
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_help_is_understood() {
        let samples = [
            "advance 3",
            "interval 0",
            "payment 1",
            "ledger",
            "restart 100",
            "restart 100 50",
            "hang",
            "hang 10",
            "hang 0 SettleInvoice",
            "release",
            "drop-streams",
            "drop-streams no reason",
            "lock",
            "unlock",
            "state RPC_ACTIVE",
            "out-of-sync",
            "in-sync",
            "finality hold",
            "finality release",
            "finality lose",
            "slow 5",
            "lose-reply SettleInvoice",
            "lose-reply SettleInvoice 2",
            "fail CancelInvoice 1 2 some text",
        ];
        for sample in samples {
            let words: Vec<&str> = sample.split(' ').collect();
            assert!(parse(&words).is_some(), "{sample}");
            assert!(CONTROL_HELP.contains(words[0]), "{sample} is not in the help");
        }
        for bad in ["", "advance", "advance x", "state RUNNING", "pay"] {
            assert!(parse(&bad.split(' ').collect::<Vec<_>>()).is_none(), "{bad}");
        }
    }
}
