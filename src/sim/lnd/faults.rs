//! Faults on command: what the simulated LND does to calls, connections and itself.
//!
//! Called by the control interface and the in-process handle to inject, by [`super::front`] at each call.
//! Must stay true: an injected fault needs no runtime; what has to happen later is left to the serving task.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::SimError;
use super::connections::ConnectionId;
use super::engine::Engine;
use super::front::is_method;
use super::node::Finality;
use crate::proto::lnrpc::WalletState;
use crate::time::UnixMs;

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Cuts all connections, refuses new ones for `down`, comes back: half of `startup` starting, half RPC_ACTIVE.
    Restart {
        /// How long the port is closed.
        down: Duration,
        /// Time from coming back to SERVER_ACTIVE.
        startup: Duration,
    },
    /// Calls neither take effect nor answer for so long, or until released.
    Hang {
        /// `None` until [`Fault::Release`].
        time: Option<Duration>,
        /// Only this method.
        method: Option<String>,
    },
    /// Ends [`Fault::Hang`]; what hung goes on, even if its caller has left.
    Release,
    /// Ends every stream: with OK, or with this text as an error.
    DropStreams {
        /// Code Unknown with this text.
        error: Option<String>,
    },
    /// Moves the node to a state of its life. Going down cuts all connections.
    SetState(WalletState),
    /// The node loses its source of blocks: it is out of sync, and its best block gets older. `true` ends it.
    Sync(bool),
    /// The peer that the payments come from goes, comes back, or takes its money back on chain.
    Finality(Finality),
    /// Delays every answer; zero ends it.
    Slow(Duration),
    /// The next `count` calls take effect, and their connection breaks before the answer.
    LoseReply {
        /// As in `SettleInvoice`.
        method: String,
        /// How many calls.
        count: u32,
    },
    /// The next `count` calls have no effect and answer this error.
    Fail {
        /// As in `SettleInvoice`.
        method: String,
        /// How many calls.
        count: u32,
        /// gRPC code.
        code: i32,
        /// Text.
        text: String,
    },
}

/// A restart that has to be ended later.
#[derive(Debug)]
pub(super) struct Comeback {
    epoch: u64,
    down: Duration,
    startup: Duration,
}

#[derive(Debug, Clone, Default)]
struct Present {
    /// Counts the lives of the process: a call of an earlier life never goes on.
    epoch: u64,
    hang: Option<Hang>,
    slow: Duration,
    out_of_sync: Option<UnixMs>,
}

#[derive(Debug, Clone)]
struct Hang {
    method: Option<String>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Counted {
    method: String,
    left: u32,
    /// `None`: lose the reply.
    error: Option<Status>,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    present: watch::Sender<Present>,
    counted: Mutex<Vec<Counted>>,
    hanging: AtomicUsize,
}

/// One hanging call.
struct Hanging<'a>(&'a AtomicUsize);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Faults {
    /// How many calls and streams hang now.
    pub fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    /// Since when the node is out of sync, if it is.
    pub fn out_of_sync(&self) -> Option<UnixMs> {
        self.present.borrow().out_of_sync
    }

    pub fn epoch(&self) -> u64 {
        self.present.borrow().epoch
    }

    /// Another life of the process: what hung is dead.
    pub fn new_epoch(&self) -> u64 {
        self.present.send_modify(|present| {
            present.epoch += 1;
            present.hang = None;
        });
        self.epoch()
    }

    /// Waits while `method` hangs. An error when the process died meanwhile.
    pub async fn hang(&self, method: &str, epoch: u64) -> Result<(), Status> {
        let mut present = self.present.subscribe();
        loop {
            let (now_epoch, hang) = {
                let seen = present.borrow_and_update();
                (seen.epoch, seen.hang.clone())
            };
            if now_epoch != epoch {
                return Err(Status::unavailable("transport is closing"));
            }
            let Some(hang) = hang.filter(|hang| hang.method.as_deref().is_none_or(|only| only == method)) else {
                return Ok(());
            };
            self.hanging.fetch_add(1, Ordering::SeqCst);
            let _hanging = Hanging(&self.hanging);
            tokio::select! {
                _ = present.changed() => {}
                () = until(hang.until) => return Ok(()),
            }
        }
    }

    /// Delays an answer.
    pub async fn slow(&self) {
        let delay = self.present.borrow().slow;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// The error to answer instead of acting, if one is due.
    pub fn fail(&self, method: &str) -> Result<(), Status> {
        self.take(method, |fault| fault.error.is_some())
            .and_then(|fault| fault)
            .map_or(Ok(()), Err)
    }

    /// Whether this reply is to be lost.
    pub fn lose_reply(&self, method: &str) -> bool {
        self.take(method, |fault| fault.error.is_none()).is_some()
    }

    fn take(&self, method: &str, kind: impl Fn(&Counted) -> bool) -> Option<Option<Status>> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = counted
            .iter_mut()
            .find(|fault| fault.left > 0 && fault.method == method && kind(fault))?;
        fault.left -= 1;
        let error = fault.error.clone();
        counted.retain(|fault| fault.left > 0);
        Some(error)
    }

    fn count(&self, method: String, left: u32, error: Option<Status>) -> Result<(), SimError> {
        check(&method)?;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.push(Counted { method, left, error });
        Ok(())
    }
}

fn check(method: &str) -> Result<(), SimError> {
    if is_method(method) {
        Ok(())
    } else {
        Err(SimError::BadFault(format!("no method `{method}`")))
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl Engine {
    /// Injects a fault. `keep` is a connection that survives it: the one it came by.
    pub fn inject(&self, fault: Fault, keep: Option<ConnectionId>) -> Result<(), SimError> {
        match fault {
            Fault::Restart { down, startup } => {
                let epoch = self.go_down(WalletState::WaitingToStart, keep, true);
                _ = self.comebacks.send(Comeback { epoch, down, startup });
            }
            Fault::Hang { time, method } => {
                method.as_deref().map_or(Ok(()), check)?;
                let until = time.and_then(|time| Instant::now().checked_add(time));
                self.faults
                    .present
                    .send_modify(|present| present.hang = Some(Hang { method, until }));
            }
            Fault::Release => self.faults.present.send_modify(|present| present.hang = None),
            Fault::DropStreams { error } => self.drop_streams(error.map(Status::unknown).as_ref()),
            Fault::SetState(state) => {
                if rank(state) < rank(*self.state.borrow()) {
                    self.go_down(state, keep, false);
                } else {
                    self.enter_state(state, None);
                }
            }
            Fault::Sync(synced) => {
                let since = (!synced).then(|| self.now());
                self.faults.present.send_modify(|present| present.out_of_sync = since);
            }
            Fault::Finality(order) => self.with(|node, now| node.set_finality(order, now))?,
            Fault::Slow(delay) => self.faults.present.send_modify(|present| present.slow = delay),
            Fault::LoseReply { method, count } => self.faults.count(method, count, None)?,
            Fault::Fail {
                method,
                count,
                code,
                text,
            } => {
                let error = Status::new(Code::from_i32(code), text);
                self.faults.count(method, count, Some(error))?;
            }
        }
        Ok(())
    }

    /// The process ends and another begins in `state`.
    fn go_down(&self, state: WalletState, keep: Option<ConnectionId>, refuse: bool) -> u64 {
        let epoch = self.faults.new_epoch();
        self.enter_state(state, None);
        self.drop_streams(None);
        self.connections.cut(keep, refuse);
        epoch
    }

    /// Ends a restart, unless the node went down again meanwhile.
    pub async fn come_back(self: Arc<Self>, comeback: Comeback) {
        let epoch = comeback.epoch;
        tokio::time::sleep(comeback.down).await;
        if self.faults.epoch() == epoch {
            self.connections.listen();
        }
        if !comeback.startup.is_zero() {
            for state in [WalletState::Unlocked, WalletState::RpcActive] {
                self.enter_state(state, Some(epoch));
                tokio::time::sleep(comeback.startup / 2).await;
            }
        }
        self.enter_state(WalletState::ServerActive, Some(epoch));
    }
}

/// How far the node is in its life.
fn rank(state: WalletState) -> u8 {
    match state {
        WalletState::WaitingToStart => 0,
        WalletState::NonExisting => 1,
        WalletState::Locked => 2,
        WalletState::Unlocked => 3,
        WalletState::RpcActive => 4,
        WalletState::ServerActive => 5,
    }
}
