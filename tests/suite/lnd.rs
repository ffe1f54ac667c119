//! The LND client over real TLS connections, against scripted answers.
#![allow(clippy::expect_used)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tellerd::ids::{PaymentHash, Preimage};
use tellerd::lnd::backoff::Backoff;
use tellerd::lnd::{
    HoldInvoiceRequest, InvoiceState, Lightning, LnErrorKind, LndClient, LndConfig, LndLocation, NodeState,
};
use tellerd::money::Msat;
use tellerd::proto::chainrpc::BlockEpoch;
use tellerd::proto::lnrpc::invoice;
use tonic::Status;

use crate::lnd_fake::{self, Certificate, FakeLnd, Files, MACAROON};

const HASH: PaymentHash = PaymentHash([5; 32]);

fn config(address: SocketAddr, files: &Files) -> LndConfig {
    LndConfig::new(LndLocation::Files {
        address: address.to_string(),
        tls_cert: files.tls_cert(),
        macaroon: files.macaroon(),
    })
}

fn client(lnd: &FakeLnd, files: &Files) -> LndClient {
    LndClient::new(&config(lnd.address, files)).expect("config")
}

/// A server, its files, and a client of both.
fn all() -> (FakeLnd, Files, LndClient) {
    let certificate = Certificate::new();
    let lnd = FakeLnd::start(&certificate);
    let files = Files::new(&certificate, MACAROON);
    let client = client(&lnd, &files);
    (lnd, files, client)
}

fn request() -> HoldInvoiceRequest {
    HoldInvoiceRequest {
        hash: HASH,
        amount: Msat(1_000),
        memo: "60.00 EUR".to_owned(),
        expiry: Duration::from_secs(600),
        cltv_expiry: 80,
        private_route_hints: true,
    }
}

#[test]
fn the_client_can_be_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<LndClient>();
}

#[tokio::test]
async fn a_pinned_certificate_with_the_ca_bit_is_accepted() {
    let (lnd, _files, client) = all();
    assert_eq!(client.state().await.expect("state"), NodeState::ServerActive);
    let info = client.info().await.expect("info");
    assert_eq!((info.network.as_str(), info.block_height), ("regtest", 800_000));
    assert_eq!(lnd.connections(), 1);
}

#[tokio::test]
async fn an_lndconnect_uri_is_enough() {
    let certificate = Certificate::new();
    let lnd = FakeLnd::start(&certificate);
    let uri = format!(
        "lndconnect://{}?cert={}&macaroon={}",
        lnd.address,
        BASE64_URL_SAFE_NO_PAD.encode(&certificate.der),
        BASE64_URL_SAFE_NO_PAD.encode(MACAROON)
    );
    let location = LndLocation::Uri { uri, tls_cert: None };
    let client = LndClient::new(&LndConfig::new(location)).expect("config");
    assert_eq!(client.info().await.expect("info").alias, "fake");
}

#[tokio::test]
async fn another_certificate_is_refused_in_words_until_the_file_is_right() {
    let (presented, pinned) = (Certificate::new(), Certificate::new());
    let lnd = FakeLnd::start(&presented);
    let files = Files::new(&pinned, MACAROON);
    let client = client(&lnd, &files);
    let error = client.info().await.expect_err("another certificate");
    let words = format!(
        "the certificate presented by LND at {} is not the one in {} (sha256 {}, expected {})",
        lnd.address,
        files.tls_cert().display(),
        hex::encode(Sha256::digest(&presented.der)),
        hex::encode(Sha256::digest(&pinned.der))
    );
    assert_eq!((error.call, error.kind), ("GetInfo", LnErrorKind::Unreachable));
    assert!(error.message.ends_with(&words), "{error}");
    assert!(
        lnd.macaroons_of("GetInfo").is_empty(),
        "the macaroon went to a stranger"
    );

    files.write_certificate(&presented);
    assert!(client.info().await.is_ok());
}

#[tokio::test]
async fn a_certificate_rotated_by_a_restart_is_picked_up() {
    let (mut lnd, files, client) = all();
    client.info().await.expect("first certificate");
    lnd.stop();
    let next = Certificate::new();
    let lnd = FakeLnd::start_at(lnd.address, &next, lnd.script.clone());
    files.write_certificate(&next);
    let error = client.info().await.expect_err("still pinned to the first");
    assert_eq!(error.kind, LnErrorKind::Unreachable, "{error}");
    client.info().await.expect("second certificate");
    drop(lnd);
}

#[tokio::test]
async fn a_replaced_macaroon_is_picked_up_on_the_same_connection() {
    let (lnd, files, client) = all();
    files.write_macaroon(b"\x02old");
    let error = client.info().await.expect_err("old macaroon");
    assert_eq!(error.kind, LnErrorKind::Denied, "{error}");
    let error = client.info().await.expect_err("still the old macaroon");
    assert_eq!(error.kind, LnErrorKind::Denied, "{error}");
    files.write_macaroon(MACAROON);
    client.info().await.expect("new macaroon");
    assert_eq!(lnd.connections(), 1);
}

#[tokio::test]
async fn permission_denied_rereads_the_macaroon() {
    let (lnd, files, client) = all();
    client.info().await.expect("right macaroon");
    lnd.fail_with(Some(Status::unknown("permission denied")));
    let error = client.rights().await.expect_err("denied");
    assert_eq!(error.kind, LnErrorKind::Denied);
    assert!(error.message.contains("permission denied; bake one"), "{error}");
    let error = client.cancel(&HASH).await.expect_err("denied");
    assert_eq!(error.kind, LnErrorKind::Denied);
    let next = b"\x02next".as_slice();
    files.write_macaroon(next);
    *lnd.script.macaroon.lock().expect("lock") = hex::encode(next);
    lnd.fail_with(None);
    client.cancel(&HASH).await.expect("new macaroon");
    client.rights().await.expect("all three");
}

#[tokio::test]
async fn nothing_is_committed_on_a_node_that_is_out_of_sync() {
    let (lnd, _files, client) = all();
    let error = client.commit(&HASH).await.expect_err("out of sync");
    assert_eq!(error.kind, LnErrorKind::NotReady, "{error}");
    *lnd.script.synced.lock().expect("lock") = true;
    let commitment = client.commit(&HASH).await.expect("in sync");
    assert_eq!(commitment.height, 800_000);
    assert_eq!(commitment.held.expect("known").state, InvoiceState::Open);
}

#[tokio::test]
async fn the_state_is_told_before_there_is_a_macaroon() {
    let certificate = Certificate::new();
    let lnd = FakeLnd::start(&certificate);
    let files = Files::none();
    files.write_certificate(&certificate);
    let client = client(&lnd, &files);
    assert_eq!(client.state().await.expect("state"), NodeState::ServerActive);
    let error = client.info().await.expect_err("no macaroon");
    assert_eq!(error.kind, LnErrorKind::Denied);
    assert!(error.message.contains("admin.macaroon can not be read"), "{error}");
    assert!(lnd.macaroons_of("GetInfo").is_empty());
    files.write_macaroon(MACAROON);
    client.info().await.expect("macaroon");
    assert_eq!(lnd.connections(), 1);
}

#[tokio::test]
async fn lnd_may_come_up_later() {
    let certificate = Certificate::new();
    let mut lnd = FakeLnd::start(&certificate);
    lnd.stop();
    let files = Files::none();
    let mut config = config(lnd.address, &files);
    config.reconnect = Backoff {
        first: Duration::ZERO,
        cap: Duration::ZERO,
    };
    let client = LndClient::new(&config).expect("nothing has to exist yet");
    let error = client.info().await.expect_err("no files");
    assert_eq!(error.kind, LnErrorKind::Unreachable);
    assert!(error.message.contains("tls.cert can not be read"), "{error}");
    files.write_certificate(&certificate);
    files.write_macaroon(MACAROON);
    let error = client.info().await.expect_err("no server");
    assert_eq!(error.kind, LnErrorKind::Unreachable);
    assert!(error.message.to_lowercase().contains("connection refused"), "{error}");
    let lnd = FakeLnd::start_at(lnd.address, &certificate, lnd.script.clone());
    client.info().await.expect("all is there");
    drop(lnd);
}

#[tokio::test]
async fn after_a_restart_of_the_server_the_next_call_works() {
    let certificate = Certificate::new();
    let mut lnd = FakeLnd::start(&certificate);
    let files = Files::new(&certificate, MACAROON);
    let client = client(&lnd, &files);
    client.info().await.expect("before");
    lnd.stop();
    let error = client.info().await.expect_err("down");
    assert_eq!(error.kind, LnErrorKind::Unreachable, "{error}");
    let lnd = FakeLnd::start_at(lnd.address, &certificate, lnd.script.clone());
    client.info().await.expect("after");
    drop(lnd);
}

#[tokio::test]
async fn many_calls_to_a_dead_server_make_few_attempts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let files = Files::new(&Certificate::new(), MACAROON);
    let mut config = config(listener.local_addr().expect("address"), &files);
    config.reconnect = Backoff {
        first: Duration::from_secs(3_600),
        cap: Duration::from_secs(3_600),
    };
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = attempts.clone();
    let server = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    let client = LndClient::new(&config).expect("config");
    for result in join_all((0..50).map(|_| client.info())).await {
        assert_eq!(result.expect_err("dead").kind, LnErrorKind::Unreachable);
    }
    assert_eq!(attempts.load(Ordering::SeqCst), 1, "all share one attempt");
    for _ in 0..50 {
        assert_eq!(client.info().await.expect_err("dead").kind, LnErrorKind::Unreachable);
    }
    assert_eq!(attempts.load(Ordering::SeqCst), 2, "then the back-off counts");
    let error = client.info().await.expect_err("dead");
    assert!(
        error.message.starts_with("not connected, trying again soon; last: "),
        "{error}"
    );
    server.abort();
}

#[tokio::test]
async fn a_hanging_call_times_out_and_leaves_open_streams_alone() {
    let (lnd, files, _) = all();
    let mut config = config(lnd.address, &files);
    config.deadline = Duration::from_secs(2);
    let client = LndClient::new(&config).expect("config");
    let mut updates = client.watch(&HASH).await.expect("watch");
    assert_eq!(
        updates.next().await.expect("item").expect("snapshot").state,
        InvoiceState::Open
    );

    *lnd.script.hang.lock().expect("lock") = true;
    let error = client.info().await.expect_err("hangs");
    assert_eq!((error.call, error.kind), ("GetInfo", LnErrorKind::Timeout), "{error}");
    *lnd.script.hang.lock().expect("lock") = false;
    client.info().await.expect("a new connection");
    assert_eq!(lnd.connections(), 3, "unary, streams, unary again");

    let update = lnd_fake::invoice(HASH.0.to_vec(), invoice::InvoiceState::Accepted);
    lnd.script.watchers.lock().expect("lock")[0]
        .send(Ok(update))
        .expect("the stream is still open");
    assert_eq!(
        updates.next().await.expect("item").expect("snapshot").state,
        InvoiceState::Accepted
    );
}

#[tokio::test]
async fn a_server_that_never_speaks_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let files = Files::new(&Certificate::new(), MACAROON);
    let mut config = config(listener.local_addr().expect("address"), &files);
    config.deadline = Duration::from_millis(200);
    let client = LndClient::new(&config).expect("config");
    let error = client.info().await.expect_err("silent");
    assert_eq!(error.kind, LnErrorKind::Unreachable, "{error}");
    drop(listener);
}

#[tokio::test]
async fn exactly_one_macaroon_travels_and_none_to_the_state_service() {
    let (lnd, _files, client) = all();
    client.state().await.expect("state");
    client.info().await.expect("info");
    let _updates = client.watch(&HASH).await.expect("watch");
    let _blocks = client.blocks().await.expect("blocks");
    let one = vec![vec![hex::encode(MACAROON)]];
    assert_eq!(lnd.macaroons_of("GetInfo"), one);
    assert_eq!(lnd.macaroons_of("SubscribeSingleInvoice"), one);
    assert_eq!(lnd.macaroons_of("RegisterBlockEpochNtfn"), one);
    assert_eq!(lnd.macaroons_of("GetState"), vec![Vec::<String>::new()]);
}

#[tokio::test]
async fn the_end_of_a_stream_is_just_the_end() {
    let (lnd, _files, client) = all();
    let mut updates = client.watch(&HASH).await.expect("watch");
    let mut blocks = client.blocks().await.expect("blocks");
    let block = BlockEpoch {
        height: 800_001,
        ..BlockEpoch::default()
    };
    lnd.script.block_watchers.lock().expect("lock")[0]
        .send(Ok(block))
        .expect("open");
    lnd.script.watchers.lock().expect("lock").clear();
    lnd.script.block_watchers.lock().expect("lock").clear();
    assert_eq!(
        updates.next().await.expect("item").expect("snapshot").state,
        InvoiceState::Open
    );
    assert!(updates.next().await.is_none());
    assert_eq!(blocks.next().await.expect("item").expect("height"), 800_001);
    assert!(blocks.next().await.is_none());
    assert_eq!(
        lnd.macaroons_of("SubscribeSingleInvoice").len(),
        1,
        "no hidden resubscription"
    );
}

#[tokio::test]
async fn a_stream_whose_server_dies_ends_with_unreachable() {
    let (mut lnd, _files, client) = all();
    let mut updates = client.watch(&HASH).await.expect("watch");
    updates.next().await.expect("item").expect("snapshot");
    lnd.stop();
    let error = updates.next().await.expect("item").expect_err("died");
    assert_eq!(error.kind, LnErrorKind::Unreachable, "{error}");
    assert!(updates.next().await.is_none());
}

#[tokio::test]
async fn a_thousand_streams_open_at_once() {
    let (lnd, _files, client) = all();
    let opened = join_all((0..1_000).map(|_| client.watch(&HASH))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(lnd.script.watchers.lock().expect("lock").len(), 1_000);
    client.info().await.expect("unary calls go on");
}

#[tokio::test]
async fn settle_and_cancel_may_be_repeated() {
    let (lnd, _files, client) = all();
    let preimage = Preimage::from_bytes([9; 32]);
    client.settle(&preimage).await.expect("settle");
    client.cancel(&HASH).await.expect("cancel");
    let fail = |text: &str| lnd.fail_with(Some(Status::unknown(text)));

    fail("invoice already settled");
    client.settle(&preimage).await.expect("settled before");
    assert_eq!(
        client.cancel(&HASH).await.expect_err("kept").kind,
        LnErrorKind::AlreadySettled
    );
    fail("invoice already canceled");
    client.cancel(&HASH).await.expect("canceled before");
    assert_eq!(
        client.settle(&preimage).await.expect_err("gone").kind,
        LnErrorKind::AlreadyCanceled
    );
    fail("invoice still open");
    assert_eq!(
        client.settle(&preimage).await.expect_err("unpaid").kind,
        LnErrorKind::StillOpen
    );
    fail("unable to locate invoice");
    assert_eq!(
        client.cancel(&HASH).await.expect_err("unknown").kind,
        LnErrorKind::NotFound
    );
    assert_eq!(
        client.settle(&preimage).await.expect_err("unknown").kind,
        LnErrorKind::NotFound
    );
}

#[tokio::test]
async fn lookup_of_an_unknown_hash_is_none() {
    let (lnd, _files, client) = all();
    let snapshot = client.lookup(&HASH).await.expect("lookup").expect("known");
    assert_eq!((snapshot.hash, snapshot.state), (HASH, InvoiceState::Open));
    lnd.fail_with(Some(Status::not_found("unable to locate invoice")));
    assert_eq!(client.lookup(&HASH).await.expect("lookup"), None);
    lnd.fail_with(Some(Status::unknown(
        "wallet locked, unlock it to enable full RPC access",
    )));
    assert_eq!(
        client.lookup(&HASH).await.expect_err("locked").kind,
        LnErrorKind::NotReady
    );
}

#[tokio::test]
async fn a_hold_invoice_is_asked_for_as_given_and_a_bad_one_not_at_all() {
    let (lnd, _files, client) = all();
    assert_eq!(client.add_hold_invoice(&request()).await.expect("add"), "lnbcrt1fake");
    let added = lnd.script.added.lock().expect("lock").clone();
    assert_eq!(added.len(), 1);
    assert_eq!(
        (added[0].value, added[0].value_msat, added[0].private),
        (0, 1_000, true)
    );
    assert_eq!(
        (added[0].hash.as_slice(), added[0].expiry, added[0].cltv_expiry),
        (&HASH.0[..], 600, 80)
    );

    let any_amount = HoldInvoiceRequest {
        amount: Msat::ZERO,
        ..request()
    };
    let error = client.add_hold_invoice(&any_amount).await.expect_err("refused");
    assert_eq!(error.kind, LnErrorKind::Invalid);
    assert_eq!(lnd.macaroons_of("AddHoldInvoice").len(), 1);

    lnd.fail_with(Some(Status::unknown("invoice with payment hash already exists")));
    let error = client.add_hold_invoice(&request()).await.expect_err("again");
    assert_eq!(error.kind, LnErrorKind::AlreadyExists);
}

#[test]
fn a_bad_address_is_refused_at_once() {
    let location = LndLocation::Files {
        address: ":10009".to_owned(),
        tls_cert: PathBuf::from("tls.cert"),
        macaroon: PathBuf::from("admin.macaroon"),
    };
    let error = LndClient::new(&LndConfig::new(location)).err().expect("refused");
    assert_eq!(
        error.to_string(),
        "LND's address `:10009` has no host part: host:port expected"
    );
}
