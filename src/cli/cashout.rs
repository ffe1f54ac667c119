//! `tellerd cashout`: what a customer does at a machine, from a terminal.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{CancelCashOut, CashOutView, StartCashOut};
use crate::ids::AtmId;
use crate::lnd::backoff::Backoff;
use crate::money::Minor;
use crate::time::{Clock, SystemClock};

use super::client::{Api, ClientError};
use super::connect::At;
use super::follow::{Follower, News};
use super::{qr, show};

/// tellerd is on the same machine as a rule, and a customer waits.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    cap: Duration::from_secs(3),
};

#[derive(Debug, Args)]
pub(super) struct CashOutArgs {
    /// The machine.
    #[arg(long)]
    atm: AtmId,
    /// Value of the notes, as in 60 or 60.00.
    #[arg(long)]
    amount: Minor,
    #[command(flatten)]
    at: At,
}

/// Starts a cash-out, shows its invoice and follows it: success when it was completed.
pub(super) async fn run(args: CashOutArgs) -> anyhow::Result<ExitCode> {
    let api = args.at.api()?;
    let wanted = StartCashOut {
        atm: args.atm,
        amount_minor: args.amount,
    };
    let view = start(&api, &wanted).await?;
    let mut out = io::stdout();
    present(&view, out.is_terminal(), &mut out)?;
    let session = Session {
        api: &api,
        view,
        shown: String::new(),
        lost: false,
        cancel_asked: false,
        interrupts: interrupts()?,
        out,
    };
    let completed = session.follow().await?;
    Ok(if completed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Never asks twice: a cash-out that was started without our knowing ends unpaid.
async fn start(api: &Api, wanted: &StartCashOut) -> anyhow::Result<CashOutView> {
    api.start(wanted).await.map_err(|error| {
        let unknown = matches!(error, ClientError::Broken { .. });
        let error = anyhow::Error::from(error);
        if unknown {
            let atm = &wanted.atm;
            return error.context(format!(
                "a cash-out may have been started: see `tellerd list --atm {atm}`"
            ));
        }
        error
    })
}

fn present(view: &CashOutView, terminal: bool, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}", show::promise(view, SystemClock.now()))?;
    if let Some(invoice) = &view.payment_request {
        if let Some(code) = qr::draw(invoice).filter(|_| terminal) {
            write!(out, "\n{code}\n")?;
        }
        writeln!(out, "invoice    {invoice}")?;
    }
    out.flush()
}

/// Each Ctrl-C from now on; none is lost while something else is being done.
fn interrupts() -> io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(4);
    let mut signals = signal(SignalKind::interrupt())?;
    tokio::spawn(async move { while signals.recv().await.is_some() && sender.send(()).await.is_ok() {} });
    Ok(receiver)
}

/// A customer in front of the machine.
struct Session<'a, W> {
    api: &'a Api,
    view: CashOutView,
    /// What was shown last.
    shown: String,
    /// The connection is known to be gone.
    lost: bool,
    cancel_asked: bool,
    interrupts: mpsc::Receiver<()>,
    out: W,
}

impl<W: Write> Session<'_, W> {
    /// To the rest of the cash-out: whether it was completed.
    async fn follow(mut self) -> anyhow::Result<bool> {
        let mut follower = Follower::new(self.api, self.view.id, BACKOFF);
        self.show()?;
        while !self.view.at_rest() {
            tokio::select! {
                news = follower.next() => match news? {
                    Some(News::View(view)) => self.seen(*view)?,
                    Some(News::Lost(why)) => {
                        self.lost = true;
                        self.say(&format!("connection lost: {why}; the cash-out goes on by itself, trying again"))?;
                    }
                    None => break,
                },
                _ = self.interrupts.recv() => {
                    if !self.interrupted().await? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(self.view.state == "completed")
    }

    fn seen(&mut self, view: CashOutView) -> io::Result<()> {
        if std::mem::take(&mut self.lost) {
            self.say("connected again")?;
        }
        self.view = view;
        self.show()
    }

    fn show(&mut self) -> io::Result<()> {
        let text = show::state(&self.view);
        if text != self.shown {
            self.say(&text)?;
            self.shown = text;
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Before the payment, Ctrl-C cancels; after it, or the second time, it leaves. Whether to follow on.
    async fn interrupted(&mut self) -> anyhow::Result<bool> {
        let unpaid = matches!(self.view.state.as_str(), "quoted" | "awaiting_payment");
        if !unpaid || self.cancel_asked {
            self.leave()?;
            return Ok(false);
        }
        self.cancel_asked = true;
        let order = CancelCashOut::default();
        let answer = tokio::select! {
            answer = self.api.cancel(self.view.id, &order) => answer,
            _ = self.interrupts.recv() => {
                self.leave()?;
                return Ok(false);
            }
        };
        match answer {
            Ok(view) => {
                self.view = view;
                self.show()?;
            }
            Err(error) => self.say(&format!(
                "not canceled: {error}. Unpaid, it ends by itself; Ctrl-C again leaves it to itself"
            ))?,
        }
        Ok(true)
    }

    fn leave(&mut self) -> io::Result<()> {
        let id = self.view.id;
        self.say(&format!(
            "cash-out {id} goes on without this command; see `tellerd list --open`"
        ))
    }
}

#[cfg(test)]
mod tests;
