//! `tellerd list` and `tellerd resolve`: an operator's view of cash-outs, and his word on the open ones.

use std::process::ExitCode;

use clap::{ArgGroup, Args};

use crate::api::Decision;
use crate::ids::{AtmId, CashOutId};
use crate::money::Minor;

use super::connect::{At, By, Remote};
use super::show;
use super::tellerd::Tellerd;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those of this machine.
    #[arg(long)]
    atm: Option<AtmId>,
    /// Only those that have not ended, with what an operator is to do; all of them.
    #[arg(long)]
    open: bool,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500), conflicts_with = "open")]
    limit: u16,
    #[command(flatten)]
    at: At,
}

pub(super) async fn list(args: ListArgs, remote: &Remote) -> anyhow::Result<ExitCode> {
    let tellerd = args.at.tellerd(remote, None).await?;
    if args.open {
        for id in open(&tellerd, args.atm.as_ref()).await? {
            let view = tellerd.cashout(id).await?;
            println!("{}", show::row(&view));
            if let Some(action) = &view.operator_action {
                println!("  operator: {action}");
            }
        }
    } else {
        for view in &tellerd.cashouts(args.atm.as_ref(), args.limit).await? {
            println!("{}", show::row(view));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(tellerd: &Tellerd, atm: Option<&AtmId>) -> anyhow::Result<Vec<CashOutId>> {
    let atms = tellerd.atms().await?.atms;
    if let Some(atm) = atm {
        anyhow::ensure!(atms.iter().any(|view| view.id == *atm), "no ATM is called {atm}");
    }
    let wanted = atms.into_iter().filter(|view| atm.is_none_or(|atm| view.id == *atm));
    Ok(wanted.flat_map(|view| view.open).collect())
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("decision").required(true))]
pub(super) struct ResolveArgs {
    /// The cash-out.
    cashout: CashOutId,
    /// Of an unknown outcome: notes of this value reached the customer, as in 40 or 40.00; 0 for none.
    #[arg(long, group = "decision", value_name = "AMOUNT")]
    delivered: Option<Minor>,
    /// Of a claim: it was paid to the customer.
    #[arg(long, group = "decision")]
    claim_paid: bool,
    /// Of an item that needs an operator: closed with the books as they are.
    #[arg(long, group = "decision")]
    close: bool,
    #[command(flatten)]
    by: By,
    /// Why; kept in the journal.
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    at: At,
}

impl ResolveArgs {
    fn decision(&self) -> Decision {
        match self.delivered {
            Some(value) => Decision::DeliveredMinor(value),
            None if self.claim_paid => Decision::ClaimPaid,
            None => Decision::Close,
        }
    }
}

pub(super) async fn resolve(args: ResolveArgs, remote: &Remote) -> anyhow::Result<ExitCode> {
    let tellerd = args.at.tellerd(remote, Some(&args.by)).await?;
    let decision = args.decision();
    let view = tellerd.resolve(args.cashout, decision, args.note, &args.by).await?;
    println!("{}", show::state(&view));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ResolveArgs,
    }

    fn decision(words: &str) -> Result<Decision, clap::error::ErrorKind> {
        let line = Line::try_parse_from(format!("resolve 01JD2M9K7Q8XWV3F {words}").split_whitespace());
        line.map(|line| line.args.decision()).map_err(|error| error.kind())
    }

    #[test]
    fn exactly_one_decision_is_taken() {
        use clap::error::ErrorKind;
        assert_eq!(
            decision("--delivered 40.00"),
            Ok(Decision::DeliveredMinor(Minor(4_000)))
        );
        assert_eq!(decision("--delivered 0"), Ok(Decision::DeliveredMinor(Minor::ZERO)));
        assert_eq!(decision("--claim-paid"), Ok(Decision::ClaimPaid));
        assert_eq!(decision("--close"), Ok(Decision::Close));
        assert_eq!(decision(""), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(decision("--close --claim-paid"), Err(ErrorKind::ArgumentConflict));
        assert_eq!(decision("--delivered 1.005"), Err(ErrorKind::ValueValidation));
    }
}
