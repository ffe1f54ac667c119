//! tellerd aborts at an exact point of its work, and LND is killed in the same moment; both come back.
//!
//! The points are those of `src/crash.rs`: what was done at LND, or by the machine, is not written down yet, or the reverse.

use tellerd::api::{CashOutView, StartCashOut};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::Setup;
use tellerd::money::Minor;

use super::stage::AMOUNT;
use super::verdict::row;
use crate::audit::Audit;
use crate::rig::{Net, breath};
use crate::site::Machine;
use crate::teller::Teller;

/// The point, whether the customer pays or cancels, and how it ends.
const POINTS: [(&str, bool, &str); 7] = [
    ("after Add#1", true, "completed"),
    ("append cash_out payment_held#1", true, "completed"),
    ("before Dispense#1", true, "canceled"),
    ("after Dispense#1", true, "completed"),
    ("append cash_out dispense_reported#1", true, "completed"),
    ("append invoice settled_at_lnd#1", true, "completed"),
    ("after Cancel#1", false, "canceled"),
];

/// One machine, one cash-out after the other.
pub async fn at_every_point(net: &mut Net) {
    let machine = Machine {
        variant: Variant::Standard,
        setup: Setup::default(),
    };
    let file = net.merchant.macaroons().join("admin.macaroon");
    let mut teller = Teller::open(net, file, &[machine], "");
    let mut rows = Vec::new();
    for (point, pays, end) in POINTS {
        teller.ready("atm1").await;
        let audit = Audit::begin(net, &teller).await;
        teller.daemon.kill().await;
        teller.daemon = teller.site.daemon(&[("TELLERD_CRASH_AT", point.to_owned())]);
        teller.ready("atm1").await;
        let known = teller.cashouts().await.len();
        let mut customer = Customer {
            pays,
            known,
            done: false,
        };
        customer.live(net, &mut teller).await;
        net.merchant.kill();
        net.merchant.start();
        teller.daemon = teller.site.daemon(&[]);
        net.whole().await;
        customer.live(net, &mut teller).await;
        let fates = audit.end(net, &teller).await;
        let fate = fates.first().expect("there was a promise");
        assert_eq!(fate.view.state, end, "{point}");
        rows.push(format!("| BothKilled | at `{point}` | {}", row(net, Some(fate)).await));
    }
    super::tell(rows);
}

/// Asks once, then pays or cancels once.
struct Customer {
    pays: bool,
    /// Cash-outs before this one.
    known: usize,
    done: bool,
}

impl Customer {
    /// Until the daemon dies or nothing happens any more.
    async fn live(&mut self, net: &Net, teller: &mut Teller) {
        loop {
            if let Some(status) = teller.daemon.ended() {
                assert!(!status.success(), "tellerd ended by itself");
                return;
            }
            let list: Option<tellerd::api::CashOutList> = teller.daemon.get("/v1/cashouts").await;
            let list = list.map(|list| list.cashouts);
            match list {
                Some(all) if all.len() <= self.known => self.ask(teller).await,
                Some(all) if all[0].at_rest() => return,
                Some(all) => self.go_on(net, teller, &all[0]).await,
                None => {}
            }
            breath().await;
        }
    }

    /// Whether it was taken shows in the list.
    async fn ask(&self, teller: &Teller) {
        let order = StartCashOut {
            atm: "atm1".parse().unwrap(),
            amount_minor: Minor(AMOUNT),
        };
        let _: Option<CashOutView> = teller.daemon.post("/v1/cashouts", &order).await;
    }

    async fn go_on(&mut self, net: &Net, teller: &Teller, view: &CashOutView) {
        let Some(request) = view.payment_request.as_ref().filter(|_| !self.done) else {
            return;
        };
        self.done = true;
        if self.pays {
            drop(net.pay(request, None).await);
        } else {
            let cancel = tellerd::api::CancelCashOut::default();
            let path = format!("/v1/cashouts/{}/cancel", view.id);
            let _: Option<CashOutView> = teller.daemon.post(&path, &cancel).await;
        }
    }
}
