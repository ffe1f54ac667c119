//! Cash-outs on real Lightning: the daemon, an emulated dispenser, two nodes; each audited from the world alone.
//!
//! Every test stands a daemon of its own beside the shared network. What must stay true: none asserts on the wall clock;
//! each that needs other rules sets them in its configuration.

use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::Setup;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;

use crate::audit::Audit;
use crate::harness::{Group, test};
use crate::rig::Net;
use crate::site::Machine;
use crate::teller::Teller;

/// These tests.
pub const GROUP: Group = Group {
    name: "cashouts",
    merchant: &["--store-final-htlc-resolutions"],
    tests: &[test("a_success", |net| Box::pin(a_success(net)))],
};

/// A daemon with one machine, and these lines more of configuration.
async fn teller(net: &Net, setup: Setup, more: &str) -> Teller {
    let machine = Machine {
        variant: Variant::Standard,
        setup,
    };
    let teller = Teller::open(net, net.merchant.macaroons().join("admin.macaroon"), &[machine], more);
    teller.ready("atm1").await;
    teller
}

async fn a_success(net: &mut Net) {
    let teller = teller(net, Setup::default(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let payment = net.pay(&cashout.payment_request.clone().unwrap(), None).await;
    let payment = payment.await.unwrap().unwrap();
    let [fate] = audit.end(net, &teller).await.try_into().ok().unwrap();
    assert_eq!((fate.view.state.as_str(), fate.notes()), ("completed", 12_000));
    assert_eq!(fate.state(), Some(InvoiceState::Settled));
    assert_eq!(payment.status(), PaymentStatus::Succeeded);
    assert_eq!(u64::try_from(fate.paid_msat).unwrap(), cashout.price_msat.0);
}
