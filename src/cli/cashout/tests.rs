//! A customer's session against a scripted tellerd: what is said, and what is asked of it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::cli::client::TokenSource;
use crate::money::Msat;
use crate::time::UnixMs;

fn view(state: &str) -> CashOutView {
    CashOutView {
        id: "01JD2M9K7Q8XWV3F".parse().unwrap(),
        atm: "lobby".parse().unwrap(),
        state: state.into(),
        reason: None,
        ended: matches!(state, "completed" | "canceled"),
        operator_action: None,
        amount_minor: Minor(6_000),
        fee_minor: Minor(100),
        currency: "EUR".parse().unwrap(),
        price_msat: Msat(61_000_000),
        paid_msat: Msat(0),
        payment_request: Some("lnbcrt610u1p".into()),
        payment_hash: "07".repeat(32),
        created_unix_ms: UnixMs(1),
        pay_by_unix_ms: UnixMs(2),
        deadline_unix_ms: None,
        delivered_minor: Minor(6_000),
        claim_minor: Minor(2_000),
        loss_minor: Minor::ZERO,
        funds: None,
        settled: false,
    }
}

fn json(state: &str) -> String {
    serde_json::to_string(&view(state)).unwrap()
}

/// An answer; the connection closes after it.
fn answer(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}")
}

fn events(states: &[&str]) -> String {
    let frames: Vec<String> = states
        .iter()
        .map(|state| format!(": hm\n\nevent: cashout\ndata: {}\n\n", json(state)))
        .collect();
    answer("200 OK", "text/event-stream", &frames.concat())
}

/// Reads one request: its first line and its body. `None` when the client hung up.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(format!("{} {body}", head.lines().next().unwrap()));
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return None;
        }
    }
}

/// A tellerd that answers one request after the other as told, and what it was asked.
async fn scripted(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(request(&mut stream).await.unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        asked
    });
    (address, asked)
}

fn api(address: SocketAddr) -> Api {
    Api::new(&format!("http://{address}"), TokenSource::None).unwrap()
}

/// The end of a session that begins with `state`, and the first words of each line.
async fn followed(api: &Api, state: &str, interrupts: mpsc::Receiver<()>) -> (anyhow::Result<bool>, Vec<String>) {
    let mut out = Vec::new();
    let session = Session {
        api,
        view: view(state),
        shown: String::new(),
        lost: false,
        cancel_asked: false,
        interrupts,
        out: &mut out,
    };
    let end = session.follow().await;
    let text = String::from_utf8(out).unwrap();
    let word = |line: &str| line.split([' ', ':']).next().unwrap_or_default().to_owned();
    (end, text.lines().map(word).collect())
}

#[tokio::test]
async fn it_is_followed_through_a_restart_to_its_end() {
    let busy = answer(
        "503 Service Unavailable",
        "application/json",
        r#"{"code":"unavailable","message":"starting"}"#,
    );
    let script = vec![
        events(&["awaiting_payment", "held", "dispensing"]),
        busy,
        events(&[]),
        events(&["dispensing", "settling", "completed"]),
    ];
    let (address, asked) = scripted(script).await;
    let (_never, interrupts) = mpsc::channel(1);
    let (end, lines) = followed(&api(address), "awaiting_payment", interrupts).await;
    assert!(end.unwrap());
    let expected = [
        "awaiting_payment",
        "held",
        "dispensing",
        "connection",
        "connected",
        "settling",
        "completed",
    ];
    assert_eq!(lines, expected);
    assert_eq!(asked.await.unwrap().len(), 4);
}

#[tokio::test]
async fn what_rests_without_being_completed_is_a_failure() {
    for state in ["canceled", "claim_owed", "needs_operator"] {
        let (address, _asked) = scripted(vec![events(&["held", state])]).await;
        let (_never, interrupts) = mpsc::channel(1);
        let (end, lines) = followed(&api(address), "held", interrupts).await;
        assert!(!end.unwrap(), "{state}");
        assert_eq!(lines, ["held", state]);
    }
}

#[tokio::test]
async fn a_cashout_that_is_not_there_any_more_ends_the_following() {
    let gone = answer(
        "404 Not Found",
        "application/json",
        r#"{"code":"no_such_cashout","message":"there is no cash-out X"}"#,
    );
    let (address, _asked) = scripted(vec![gone]).await;
    let (_never, interrupts) = mpsc::channel(1);
    let (end, _) = followed(&api(address), "held", interrupts).await;
    assert_eq!(end.unwrap_err().to_string(), "there is no cash-out X [no_such_cashout]");
}

/// A tellerd whose events never come; the next request is answered with `answer`.
async fn silent(next: String) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // An interrupt drops a connection that is just being made.
            let Some(line) = request(&mut stream).await else {
                continue;
            };
            if line.contains("/events") {
                open.push(stream);
                continue;
            }
            stream.write_all(next.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            return line;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn an_interrupt_before_the_payment_cancels() {
    let (address, asked) = silent(answer("200 OK", "application/json", &json("canceled"))).await;
    let (sender, interrupts) = mpsc::channel(1);
    sender.send(()).await.unwrap();
    let (end, lines) = followed(&api(address), "awaiting_payment", interrupts).await;
    assert!(!end.unwrap());
    assert_eq!(lines, ["awaiting_payment", "canceled"]);
    let asked = asked.await.unwrap();
    assert_eq!(
        asked,
        "POST /v1/cashouts/01JD2M9K7Q8XWV3F/cancel HTTP/1.1 {\"by\":null}"
    );
}

#[tokio::test]
async fn an_interrupt_after_the_payment_leaves_and_changes_nothing() {
    let (address, asked) = silent(answer("200 OK", "application/json", &json("canceled"))).await;
    let (sender, interrupts) = mpsc::channel(1);
    sender.send(()).await.unwrap();
    let (end, lines) = followed(&api(address), "dispensing", interrupts).await;
    assert!(!end.unwrap());
    assert_eq!(lines, ["dispensing", "cash-out"]);
    assert!(!asked.is_finished(), "it was asked to cancel");
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let wanted = StartCashOut {
        atm: "lobby".parse().unwrap(),
        amount_minor: Minor(6_000),
    };
    let said = |answer: String| {
        let wanted = wanted.clone();
        async move {
            let (address, _asked) = scripted(vec![answer]).await;
            format!("{:#}", start(&api(address), &wanted).await.unwrap_err())
        }
    };
    let strange = answer(
        "401 Unauthorized",
        "application/json",
        r#"{"code":"unauthorized","message":"no token"}"#,
    );
    assert_eq!(
        said(strange).await,
        "no token; give --config FILE or --token-file FILE, or set TELLERD_TOKEN"
    );
    assert!(
        said(answer("200 OK", "text/html", "<html>"))
            .await
            .contains("does something else run there?")
    );
    let broken = said(String::new()).await;
    assert!(
        broken.starts_with("a cash-out may have been started: see `tellerd list --atm lobby`: "),
        "{broken}"
    );

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = format!("{:#}", start(&api(closed), &wanted).await.unwrap_err());
    assert_eq!(
        refused,
        format!("nothing answers at http://{closed} (Connection refused (os error 111)); is tellerd running there?")
    );
}

#[test]
fn what_is_shown_is_exact() {
    let mut out = Vec::new();
    present(&view("awaiting_payment"), true, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("notes      60.00 EUR\nprice      61000 sat (with a fee of 1.00 EUR)"),
        "{text}"
    );
    assert!(
        text.contains('▀') && text.ends_with("invoice    lnbcrt610u1p\n"),
        "{text}"
    );
    let mut plain = Vec::new();
    present(&view("awaiting_payment"), false, &mut plain).unwrap();
    assert!(!String::from_utf8(plain).unwrap().contains('\x1b'));
}
