//! The simulated LND's faults, each over real TLS.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use tellerd::proto::invoicesrpc::SettleInvoiceMsg;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::{GetInfoRequest, GetStateRequest, WalletState};
use tellerd::proto::tellersim::{self, fault::Kind};
use tellerd::sim::lnd::{Fault, control_client};
use tokio::net::TcpStream;
use tonic::Code;

use super::sim_lnd::{Rig, next_state, request};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_restart_cuts_connections_refuses_and_comes_back() {
    let mut rig = Rig::new().await;
    rig.held(1).await;
    let mut stream = rig.watch(1).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    rig.handle
        .inject(Fault::Restart {
            down: LONG,
            startup: Duration::ZERO,
        })
        .unwrap();
    assert!(!matches!(stream.message().await, Ok(Some(_))), "the stream is cut");
    let state = rig.state.get_state(GetStateRequest {}).await;
    assert!(
        state.is_err(),
        "the connection is cut: GetState would answer in any state"
    );
    while TcpStream::connect(rig.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(rig.lookup(1).await.is_err());
    // A watcher that does not run cancels nothing; it does at once when the node is back.
    rig.handle.advance_blocks(70).unwrap();
    let back = Fault::Restart {
        down: Duration::from_millis(1),
        startup: Duration::from_millis(2),
    };
    rig.handle.inject(back).unwrap();
    let invoice = loop {
        match rig.lookup(1).await {
            Ok(invoice) if invoice.state() != InvoiceState::Accepted => break invoice,
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(invoice.state(), InvoiceState::Canceled);
    rig.reconnect().await;
    let mut stream = rig.watch(1).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Canceled));
}

#[tokio::test]
async fn a_restart_by_the_control_interface_is_answered() {
    let mut rig = Rig::new().await;
    rig.add(1).await.unwrap();
    let mut control = control_client::connect(rig.dir.path(), rig.address).await.unwrap();
    let restart = tellersim::Restart {
        down_ms: 3_600_000,
        startup_ms: 0,
    };
    control
        .inject_fault(tellersim::Fault {
            kind: Some(Kind::Restart(restart)),
        })
        .await
        .unwrap();
    assert!(rig.lookup(1).await.is_err());
    // The control connection lives on: the customer's side is no part of the node.
    let state = tellersim::SetState {
        state: WalletState::ServerActive.into(),
    };
    control
        .inject_fault(tellersim::Fault {
            kind: Some(Kind::SetState(state)),
        })
        .await
        .unwrap();
    rig.handle
        .inject(Fault::Restart {
            down: Duration::ZERO,
            startup: Duration::ZERO,
        })
        .unwrap();
    while rig.lookup(1).await.is_err() {
        tokio::task::yield_now().await;
    }
    let none = control.inject_fault(tellersim::Fault { kind: None }).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_hung_call_takes_effect_when_released_although_its_caller_left() {
    let mut rig = Rig::new().await;
    rig.held(1).await;
    let mut stream = rig.watch(1).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    rig.handle
        .inject(Fault::Hang {
            time: None,
            method: Some("SettleInvoice".into()),
        })
        .unwrap();
    let mut hung = tonic::Request::new(SettleInvoiceMsg { preimage: vec![1; 32] });
    hung.set_timeout(Duration::from_millis(50));
    assert_eq!(
        rig.invoices.settle_invoice(hung).await.unwrap_err().code(),
        Code::Cancelled
    );
    assert_eq!(
        rig.lookup(1).await.unwrap().state(),
        InvoiceState::Accepted,
        "other methods answer"
    );
    rig.handle.inject(Fault::Release).unwrap();
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Settled));
}

#[tokio::test]
async fn a_hang_of_everything_ends_by_itself_and_is_forgotten_by_a_restart() {
    let mut rig = Rig::new().await;
    rig.handle
        .inject(Fault::Hang {
            time: Some(Duration::from_millis(20)),
            method: None,
        })
        .unwrap();
    rig.lightning.get_info(GetInfoRequest {}).await.unwrap();

    rig.held(1).await;
    rig.handle
        .inject(Fault::Hang {
            time: None,
            method: None,
        })
        .unwrap();
    let mut invoices = rig.invoices.clone();
    let settle = SettleInvoiceMsg { preimage: vec![1; 32] };
    let hung = tokio::spawn(async move { invoices.settle_invoice(settle).await });
    let mut lightning = rig.lightning.clone();
    let other = tokio::spawn(async move { lightning.get_info(GetInfoRequest {}).await });
    while rig.handle.hanging_calls() < 2 {
        tokio::task::yield_now().await;
    }
    rig.handle.inject(Fault::SetState(WalletState::Locked)).unwrap();
    rig.handle.inject(Fault::SetState(WalletState::ServerActive)).unwrap();
    assert!(hung.await.unwrap().is_err());
    assert!(other.await.unwrap().is_err());
    rig.reconnect().await;
    assert_eq!(
        rig.lookup(1).await.unwrap().state(),
        InvoiceState::Accepted,
        "the hung call died with the process"
    );
}

#[tokio::test]
async fn dropped_streams_end_with_ok_or_with_the_error_given() {
    let mut rig = Rig::new().await;
    rig.held(1).await;
    let mut stream = rig.watch(1).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    rig.handle.inject(Fault::DropStreams { error: None }).unwrap();
    assert_eq!(next_state(&mut stream).await, None, "an end that is no answer");

    let mut stream = rig.watch(1).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    rig.handle
        .inject(Fault::DropStreams {
            error: Some("invoice registry shutting down".into()),
        })
        .unwrap();
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "invoice registry shutting down")
    );
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Accepted);
}

#[tokio::test]
async fn a_lost_reply_leaves_its_effect() {
    let mut rig = Rig::new().await;
    rig.held(1).await;
    rig.handle
        .inject(Fault::LoseReply {
            method: "SettleInvoice".into(),
            count: 1,
        })
        .unwrap();
    rig.handle
        .inject(Fault::LoseReply {
            method: "AddHoldInvoice".into(),
            count: 1,
        })
        .unwrap();
    assert!(rig.settle(1).await.is_err());
    rig.reconnect().await;
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Settled);
    assert!(rig.add(2).await.is_err());
    rig.reconnect().await;
    let again = rig.add(2).await.unwrap_err();
    assert_eq!(again.message(), "invoice with payment hash already exists");
    rig.settle(1).await.unwrap();
}

#[tokio::test]
async fn a_failed_call_has_no_effect_and_only_so_many_fail() {
    let mut rig = Rig::new().await;
    let fail = Fault::Fail {
        method: "AddHoldInvoice".into(),
        count: 2,
        code: 14,
        text: "try later".into(),
    };
    rig.handle.inject(fail).unwrap();
    for _ in 0..2 {
        let status = rig.add(1).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "try later"));
        assert_eq!(rig.lookup(1).await.unwrap_err().code(), Code::NotFound);
    }
    rig.add(1).await.unwrap();
    assert!(
        rig.handle
            .inject(Fault::LoseReply {
                method: "Settle".into(),
                count: 1
            })
            .is_err(),
        "no such method"
    );
}

#[tokio::test]
async fn a_slow_node_acts_at_once_and_answers_late() {
    let mut rig = Rig::new().await;
    rig.handle.inject(Fault::Slow(LONG)).unwrap();
    let mut invoices = rig.invoices.clone();
    let adding = tokio::spawn(async move { invoices.add_hold_invoice(request(1)).await });
    while rig.handle.ledger().unwrap().invoices.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!adding.is_finished());
    adding.abort();
    rig.handle.inject(Fault::Slow(Duration::ZERO)).unwrap();
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Open);
}

#[tokio::test]
async fn a_locked_wallet_is_a_restart_that_waits_for_its_password() {
    let mut rig = Rig::new().await;
    rig.held(1).await;
    let mut stream = rig.watch(1).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    rig.handle.inject(Fault::SetState(WalletState::Locked)).unwrap();
    assert!(!matches!(stream.message().await, Ok(Some(_))));
    rig.reconnect().await;
    let status = rig.lookup(1).await.unwrap_err();
    assert_eq!(status.message(), "wallet locked, unlock it to enable full RPC access");
    rig.handle.inject(Fault::SetState(WalletState::ServerActive)).unwrap();
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Accepted);
}
