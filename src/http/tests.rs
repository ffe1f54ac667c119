//! The edge without a fleet behind it: what is refused before the fleet is asked, what is counted, what is shown.
//!
//! No fleet is registered, so a request that gets past all checks ends in status 500 here.

use actix_web::http::{StatusCode, header};
use actix_web::test::{self, TestRequest};

use super::*;
use crate::actors::fleet::{AtmStatus, FleetError};
use crate::actors::views;
use crate::api::Problem;
use crate::cashout::ledger::Cassette;
use crate::cashout::quote::QuoteError;
use crate::cashout::{Books, CashOut, PartialPolicy, Phase, Policy, Quote, UnknownPolicy};
use crate::hardware::{CassetteOrder, DispenseIntent, DispenseOrder, Marker};
use crate::ids::{CashOutId, Preimage};
use crate::metrics::{AtmState, Machines, Route};
use crate::money::{Funds, Minor, Msat, Rate};
use crate::store::AtmBook;
use crate::time::UnixMs;

const API: &str = include_str!("../../docs/API.md");
const TOKEN: &str = "0123456789abcdef0123";

fn order(notes: u32) -> DispenseOrder {
    DispenseOrder {
        cassettes: vec![CassetteOrder {
            position: 1,
            denomination: Minor(2_000),
            notes,
        }],
    }
}

/// A cash-out of 60.00 EUR at the lobby.
pub(super) fn sample(phase: Phase) -> CashOut {
    let preimage = Preimage::from_bytes([9; 32]);
    let currency = "EUR".parse().unwrap();
    let quote = Quote {
        atm: "lobby".parse().unwrap(),
        amount: Minor(6_000),
        fee: Minor(100),
        currency,
        rate: Rate {
            minor_per_btc: 10_000_000,
            currency,
        },
        price: Msat(61_000_000),
        mix: order(3),
        hash: preimage.hash(),
        preimage,
        at: UnixMs(1_000),
        pay_by: UnixMs(181_000),
        policy: Policy {
            partial: PartialPolicy::Owe,
            unknown_at_deadline: UnknownPolicy::Cancel,
            hold_ms: 600_000,
            unknown_ms: 3_600_000,
            min_blocks_left: 12,
            force_blocks_left: 6,
            hold_expiry_delta: 18,
            cltv_expiry: 80,
            max_orders: 2,
        },
    };
    CashOut {
        phase,
        ..CashOut::quoted(CashOutId::new(UnixMs(1_000), 1), quote)
    }
}

fn unknown(at_least: u64) -> Phase {
    Phase::OutcomeUnknown {
        intent: DispenseIntent {
            order: order(3),
            marker: Marker(serde_json::Value::Null),
        },
        reason: "interrupted while dispensing".into(),
        until: UnixMs(9_000),
        at_least: Minor(at_least),
        no_evidence: false,
    }
}

#[test]
fn a_view_says_where_it_stands_and_tells_no_secret() {
    let view = views::cashout(&sample(Phase::AwaitingPayment));
    assert_eq!((view.state.as_str(), view.ended), ("awaiting_payment", false));
    assert_eq!((view.reason.clone(), view.operator_action.clone()), (None, None));
    assert_eq!(view.deadline_unix_ms, Some(UnixMs(181_000)));
    assert_eq!((view.amount_minor, view.fee_minor), (Minor(6_000), Minor(100)));
    let json = serde_json::to_string(&view).unwrap();
    assert!(!json.contains(&"09".repeat(32)) && !json.contains("preimage"), "{json}");
    let mut generous = sample(Phase::Completed);
    generous.books.paid = Msat(2 * generous.quote.price.0);
    assert_eq!(views::cashout(&generous).paid_msat.0, 2 * view.price_msat.0);
    let reason = "not paid in time".to_owned();
    let ended = views::cashout(&sample(Phase::Canceled { reason: reason.clone() }));
    assert!(ended.ended && ended.at_rest());
    assert_eq!((ended.reason, ended.deadline_unix_ms), (Some(reason), None));
}

#[test]
fn what_waits_for_an_operator_says_what_to_do() {
    let action = |cashout: &CashOut| views::cashout(cashout).operator_action.unwrap();
    let id = sample(Phase::Completed).id;

    let text = action(&sample(unknown(0)));
    assert!(
        text.contains(&format!("tellerd resolve {id} --delivered AMOUNT")),
        "{text}"
    );
    assert!(
        text.contains("gives the customer the money back") && !text.contains("At least"),
        "{text}"
    );
    assert!(action(&sample(unknown(2_000))).contains("At least 20.00 EUR came out"));
    assert!(action(&sample(unknown(6_000))).contains("takes the payment"));

    let mut claim = sample(Phase::ClaimOwed);
    claim.books = Books {
        claim: Minor(2_000),
        ..Books::default()
    };
    let text = action(&claim);
    assert_eq!(
        text,
        format!("Pay the customer 20.00 EUR, then: tellerd resolve {id} --claim-paid")
    );

    let why = "lnd settled an invoice that was not to be settled".to_owned();
    assert!(action(&sample(Phase::NeedsOperator { why })).contains(&format!("tellerd resolve {id} --close")));

    let why = "settled at LND, but an HTLC ended without the money".to_owned();
    let mut gone = sample(Phase::NeedsOperator { why });
    gone.books.funds = Funds::Lost;
    gone.books.delivered = gone.quote.amount;
    assert!(!action(&gone).contains("--claim-paid"), "there was no claim");
    gone.books.delivered = Minor(4_000);
    let text = action(&gone);
    assert!(
        text.contains(&format!("tellerd resolve {id} --close --note TEXT")),
        "{text}"
    );
    assert!(text.ends_with("20.00 EUR owed: --claim-paid first."), "{text}");
    // What a service shows of it: `actors/nostr/sites.rs`.
    assert!(text.chars().count() <= 256, "{text}");

    let mut lost = sample(unknown(0));
    lost.hold_lost = true;
    assert!(views::cashout(&lost).reason.unwrap().contains("the hold was lost"));
}

#[test]
fn promised_notes_are_counted_by_cassette() {
    let mut book = AtmBook::default();
    book.notes.load(Cassette::loaded(1, Minor(2_000), 500));
    book.notes.load(Cassette::loaded(2, Minor(5_000), 100));
    let view = views::atm(&AtmStatus {
        id: "lobby".parse().unwrap(),
        name: "Lobby".into(),
        state: AtmState::Busy,
        reason: None,
        book,
        open: vec![
            sample(Phase::AwaitingPayment),
            sample(unknown(0)),
            sample(Phase::ClaimOwed),
        ],
    });
    let reserved: Vec<u32> = view.cassettes.iter().map(|cassette| cassette.reserved).collect();
    assert_eq!((view.state.as_str(), reserved), ("busy", vec![6, 0]));
    assert_eq!(view.open.len(), 3);
}

#[test]
fn the_fleets_refusals_have_their_status_and_word() {
    let atm = || "lobby".parse().unwrap();
    let limits = QuoteError::OutOfLimits {
        amount: Minor(1),
        min: Minor(2),
        max: Minor(3),
    };
    for (error, status, code) in [
        (FleetError::NoSuchAtm(atm()), 404, "no_such_atm"),
        (
            FleetError::NoSuchCashOut(CashOutId::new(UnixMs(1), 1)),
            404,
            "no_such_cashout",
        ),
        (
            FleetError::NoSuchClient("kiosk".parse().unwrap()),
            404,
            "no_such_client",
        ),
        (FleetError::Quote(limits), 422, "out_of_limits"),
        (FleetError::Quote(QuoteError::Overflow(Minor(1))), 422, "overflow"),
        (FleetError::Quote(QuoteError::NoMix(Minor(1))), 409, "no_mix"),
        (FleetError::Quote(QuoteError::NoRate("EUR".into())), 503, "no_rate"),
        (FleetError::Busy(atm()), 409, "atm_busy"),
        (
            FleetError::NotInService {
                atm: atm(),
                reason: "drained".into(),
            },
            409,
            "atm_not_in_service",
        ),
        (FleetError::Refused("no".into()), 409, "refused"),
        (FleetError::Unavailable("gone".into()), 503, "unavailable"),
    ] {
        let sentence = error.to_string();
        let told = ApiError::from(error);
        assert_eq!(told.told(), (status, code, sentence.as_str()));
        assert!(
            API.contains(&format!("| {status} | `{code}` |")),
            "{code} is not in docs/API.md"
        );
    }
}

/// Sends `request` to an edge without a fleet; the status and, unless it is a success, the problem.
async fn answer(request: TestRequest) -> (u16, Option<Problem>, Metrics, header::HeaderMap) {
    let edge = Edge {
        metrics: Metrics::new().unwrap(),
        token: Some(TOKEN.parse().unwrap()),
        loopback: true,
    };
    let metrics = edge.metrics.clone();
    let app = App::new()
        .app_data(Data::new(edge))
        .wrap(from_fn(gate::gate))
        .configure(routes);
    let app = test::init_service(app).await;
    let response = test::call_service(&app, request.to_request()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = test::read_body(response).await;
    (status, serde_json::from_slice(&body).ok(), metrics, headers)
}

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path).insert_header(("Host", "localhost:9377"))
}

fn post(path: &str, body: &str) -> TestRequest {
    TestRequest::post()
        .uri(path)
        .insert_header(("Host", "localhost:9377"))
        .insert_header(("Authorization", format!("Bearer {TOKEN}")))
        .insert_header(("Content-Type", "application/json"))
        .set_payload(body.to_owned())
}

const START: &str = r#"{"atm":"lobby","amount_minor":6000}"#;

async fn refused(request: TestRequest, status: u16, code: &str) -> Problem {
    let (found, problem, ..) = answer(request).await;
    let problem = problem.unwrap_or_else(|| panic!("{found}: no problem in the body"));
    assert_eq!((found, problem.code.as_str()), (status, code), "{}", problem.message);
    assert!(
        API.contains(&format!("| {status} | `{code}` |")),
        "{code} is not in docs/API.md"
    );
    problem
}

#[actix_web::test]
async fn what_is_wrong_is_told_before_the_fleet_is_asked() {
    refused(get("/nothing"), 404, "not_found").await;
    refused(get("/v1/cashouts/"), 404, "not_found").await;
    refused(get("/v1/atms/Lobby"), 400, "bad_id").await;
    refused(get("/v1/cashouts?limit=0"), 400, "bad_query").await;
    refused(post("/metrics", ""), 405, "method_not_allowed").await;
    refused(get("/v1/atms/lobby/drain"), 405, "method_not_allowed").await;
    refused(post("/v1/cashouts", "{"), 400, "bad_json").await;
    refused(post("/v1/atms/lobby/drain", r#"{"by":""}"#), 422, "invalid").await;
    refused(post("/v1/cashouts/1/cancel", ""), 400, "bad_id").await;
    refused(post("/v1/clients/Kiosk/revoke", r#"{"by":"ada"}"#), 400, "bad_id").await;
    refused(post("/v1/clients", r#"{"name":"Kiosk","by":"ada"}"#), 400, "bad_json").await;
    refused(get("/v1/clients/kiosk/revoke"), 405, "method_not_allowed").await;
    refused(post("/v1/cashouts", &" ".repeat(MOST_BYTES + 1)), 413, "too_large").await;
    let plain = post("/v1/cashouts", START).insert_header(("Content-Type", "text/plain"));
    refused(plain, 415, "content_type").await;
    let long = refused(get(&format!("/v1/cashouts/{}", "A".repeat(5_000))), 400, "bad_id").await;
    assert!(long.message.len() <= 400);
}

#[actix_web::test]
async fn browsers_and_strangers_stay_out() {
    refused(
        get("/metrics").insert_header(("Host", "evil.example")),
        403,
        "forbidden_host",
    )
    .await;
    let page = || post("/v1/cashouts", START);
    refused(
        page().insert_header(("Origin", "http://evil.example")),
        403,
        "forbidden_origin",
    )
    .await;
    refused(page().insert_header(("Origin", "null")), 403, "forbidden_origin").await;
    refused(
        page().insert_header(("Authorization", "Bearer no")),
        401,
        "unauthorized",
    )
    .await;
    let invite = post("/v1/clients", r#"{"name":"kiosk","by":"ada"}"#);
    refused(
        invite.insert_header(("Authorization", "Bearer no")),
        401,
        "unauthorized",
    )
    .await;
    // Also where there is nothing, so that a stranger can not tell.
    let stranger = TestRequest::post().uri("/nothing").insert_header(("Host", "localhost"));
    refused(stranger, 401, "unauthorized").await;
    let stranger = TestRequest::post()
        .uri("/v1/cashouts")
        .insert_header(("Host", "localhost"));
    let (_, _, metrics, headers) = answer(stranger).await;
    assert_eq!(
        headers.get(header::WWW_AUTHENTICATE).unwrap(),
        "Bearer realm=\"tellerd\""
    );
    let counted = "tellerd_http_requests_total{route=\"cashout_start\",status=\"401\"} 1";
    assert!(metrics.render(&Machines::default()).contains(counted));
}

#[actix_web::test]
async fn every_route_is_there_and_counted_by_its_name() {
    let id = CashOutId::new(UnixMs(1), 1);
    let by = r#"{"by":"ada"}"#;
    let loaded = r#"{"by":"ada","cassettes":[{"position":1,"denomination_minor":2000,"notes":5}]}"#;
    let resolved = r#"{"by":"ada","decision":{"delivered_minor":0}}"#;
    let local = || post("/v1/cashouts", START).insert_header(("Origin", "http://localhost:9377"));
    for (request, route) in [
        (get("/metrics"), Route::Metrics),
        (get("/readyz"), Route::Readyz),
        (local(), Route::CashOutStart),
        (get("/v1/cashouts?limit=1"), Route::CashOutList),
        (get(&format!("/v1/cashouts/{id}")), Route::CashOutShow),
        (get(&format!("/v1/cashouts/{id}/events")), Route::CashOutEvents),
        (post(&format!("/v1/cashouts/{id}/cancel"), ""), Route::CashOutCancel),
        (post(&format!("/v1/cashouts/{id}/cancel"), by), Route::CashOutCancel),
        (
            post(&format!("/v1/cashouts/{id}/resolve"), resolved),
            Route::CashOutResolve,
        ),
        (get("/v1/atms"), Route::AtmList),
        (get("/v1/atms/lobby"), Route::AtmShow),
        (post("/v1/atms/lobby/drain", by), Route::AtmDrain),
        (post("/v1/atms/lobby/resume", by), Route::AtmResume),
        (post("/v1/atms/lobby/load", loaded), Route::AtmLoad),
        (get("/v1/clients"), Route::ClientList),
        (
            post("/v1/clients", r#"{"name":"kiosk","by":"ada"}"#),
            Route::ClientInvite,
        ),
        (post("/v1/clients/kiosk/revoke", by), Route::ClientRevoke),
    ] {
        let (status, _, metrics, _) = answer(request).await;
        assert_eq!(
            status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{route:?} asked the fleet that is not there"
        );
        let line = format!(
            "tellerd_http_requests_total{{route=\"{}\",status=\"500\"}} 1",
            route.as_str()
        );
        assert!(metrics.render(&Machines::default()).contains(&line), "{line}");
    }
    let (status, _, metrics, _) = answer(get("/healthz")).await;
    assert_eq!(status, 200);
    assert!(
        metrics
            .render(&Machines::default())
            .contains("route=\"healthz\",status=\"200\"} 1")
    );
    let (_, _, metrics, headers) = answer(post("/healthz", "")).await;
    assert_eq!(headers.get(header::ALLOW).unwrap(), "GET");
    assert!(
        metrics
            .render(&Machines::default())
            .contains("route=\"unknown\",status=\"405\"} 1")
    );
}
