//! Section 3 row by row: what each call answers in each state, in which words; macaroons; what a node says of itself.

use tellerd::proto::invoicesrpc::AddHoldInvoiceRequest;
use tellerd::proto::lnrpc::lightning_client::LightningClient;
use tellerd::proto::lnrpc::{GetInfoRequest, WalletState};
use tonic::{Request, Status};

use super::script::{named, told};
use super::{Case, Script, Share, case};

/// Before any invoice was ever added.
pub const EMPTY: &[Case] = &[case(
    "a node without invoices: lookup, settle, cancel",
    |s| {
        Box::pin(async move {
            let hash = s.hash(1);
            vec![told(s.lookup_with(&hash).await), s.settle(1).await, s.cancel(1).await]
        })
    },
    &[
        "NotFound: there are no existing invoices",
        "Unknown: unable to locate invoice",
        "Unknown: unable to locate invoice",
    ],
)];

/// Add, by what is asked.
pub const ADDS: &[Case] = &[
    case(
        "add: hash of 31, 33 and 0 bytes",
        |s| {
            Box::pin(async move {
                vec![
                    s.add_with(|request| request.hash.truncate(31)).await,
                    s.add_with(|request| request.hash.push(0)).await,
                    s.add_with(|request| request.hash.clear()).await,
                ]
            })
        },
        &[
            "Unknown: invalid hash length of 31, want 32",
            "Unknown: invalid hash length of 33, want 32",
            "Unknown: invalid hash length of 0, want 32",
        ],
    ),
    case(
        "add: value 0",
        |s| {
            Box::pin(async move {
                let answer = s.add_with(|request| request.value_msat = 0).await;
                vec![answer, named("value_msat", s.invoice(1).await.value_msat)]
            })
        },
        &["OK", "value_msat: 0"],
    ),
    case(
        "add: negative value, negative value_msat",
        |s| {
            Box::pin(async move {
                vec![
                    s.add_with(|request| (request.value, request.value_msat) = (-1, 0))
                        .await,
                    s.add_with(|request| request.value_msat = -1).await,
                    s.add_with(|request| request.value = -1).await,
                ]
            })
        },
        &[
            "Unknown: amount cannot be negative",
            "Unknown: amount cannot be negative",
            "Unknown: sat and msat arguments are mutually exclusive",
        ],
    ),
    case(
        "add: value and value_msat",
        |s| Box::pin(async move { vec![s.add_with(|request| request.value = 1_000).await] }),
        &["Unknown: sat and msat arguments are mutually exclusive"],
    ),
    case(
        "add: 100,000 BTC, one sat more, the largest number, and one that is 0 in 64 bits of millisatoshi",
        |s| {
            Box::pin(async move {
                let of = async |n: u8, sats: i64| {
                    let hash = s.hash(n).to_vec();
                    let change = |request: &mut AddHoldInvoiceRequest| {
                        (request.value, request.value_msat, request.hash) = (sats, 0, hash);
                    };
                    s.add_with(change).await
                };
                let answers = vec![
                    of(1, 10_000_000_000_000).await,
                    of(2, 10_000_000_000_001).await,
                    of(2, i64::MAX).await,
                    of(2, 1 << 61).await,
                ];
                [answers, vec![named("value_msat", s.invoice(2).await.value_msat)]].concat()
            })
        },
        &[
            "OK",
            "Unknown: invoice amount 100000.00000001 BTC is too large, max is 100000 BTC",
            "Unknown: payments of negative value are not allowed, value is -1000",
            "OK",
            "value_msat: 0",
        ],
    ),
    case(
        "add: cltv_expiry 1, 17, 18, 23, 24",
        |s| {
            Box::pin(async move {
                let mut answers = Vec::new();
                for cltv in [1, 17, 18, 23, 24] {
                    let hash = s.hash(cltv as u8).to_vec();
                    let change = |request: &mut AddHoldInvoiceRequest| {
                        (request.cltv_expiry, request.hash) = (cltv, hash);
                    };
                    answers.push(s.add_with(change).await);
                }
                answers
            })
        },
        &[
            "Unknown: CLTV delta of 1 must be greater than minimum of 24",
            "Unknown: CLTV delta of 17 must be greater than minimum of 24",
            "Unknown: CLTV delta of 18 must be greater than minimum of 24",
            "Unknown: CLTV delta of 23 must be greater than minimum of 24",
            "OK",
        ],
    )
    .before_21(&[
        "Unknown: CLTV delta of 1 must be greater than minimum of 18",
        "Unknown: CLTV delta of 17 must be greater than minimum of 18",
        "OK",
        "OK",
        "OK",
    ]),
    case(
        "add: cltv_expiry 65535, 65536",
        |s| {
            Box::pin(async move {
                vec![
                    s.add_with(|request| request.cltv_expiry = 65_536).await,
                    s.add_with(|request| request.cltv_expiry = 65_535).await,
                ]
            })
        },
        &[
            "Unknown: CLTV delta of 65536 is too large, max accepted is: 65535",
            "OK",
        ],
    ),
    case(
        "add: nothing but a hash: the defaults",
        |s| {
            Box::pin(async move {
                let answer = s
                    .add_with(|request| (request.value_msat, request.cltv_expiry) = (0, 0))
                    .await;
                let invoice = s.invoice(1).await;
                vec![
                    answer,
                    named("cltv_expiry", invoice.cltv_expiry),
                    named("expiry", invoice.expiry),
                    named("memo", invoice.memo),
                    named("r_preimage", invoice.r_preimage),
                    named("payment_addr", invoice.payment_addr.len()),
                ]
            })
        },
        &[
            "OK",
            "cltv_expiry: 80",
            "expiry: 86400",
            "memo: \"\"",
            "r_preimage: []",
            "payment_addr: 32",
        ],
    ),
    case(
        "add: expiry -1, a year, a second more",
        |s| {
            Box::pin(async move {
                let (one, two) = (s.hash(1).to_vec(), s.hash(2).to_vec());
                let mut answers = vec![
                    s.add_with(|request| (request.expiry, request.hash) = (-1, one)).await,
                    s.add_with(|request| (request.expiry, request.hash) = (31_536_000, two))
                        .await,
                    s.add_with(|request| request.expiry = 31_536_001).await,
                    s.add_with(|request| request.expiry = i64::MAX).await,
                ];
                answers.push(named("expiry", s.invoice(1).await.expiry));
                answers
            })
        },
        &[
            "OK",
            "OK",
            "Unknown: expiry of 3.1536001e+07 seconds greater than max expiry of 3.1536e+07 seconds",
            "Unknown: expiry of 9.223372036854776e+18 seconds greater than max expiry of 3.1536e+07 seconds",
            "expiry: 86400",
        ],
    ),
    case(
        "add: memo of 639, 640, 1024, 1025 bytes",
        |s| {
            Box::pin(async move {
                let mut answers = Vec::new();
                for (n, bytes) in [(1, 639), (2, 640), (3, 1024), (4, 1025)] {
                    let hash = s.hash(n).to_vec();
                    answers.push(
                        s.add_with(|request| (request.memo, request.hash) = ("x".repeat(bytes), hash))
                            .await,
                    );
                }
                answers
            })
        },
        &[
            "OK",
            "Unknown: data length too big to fit within 10 bits: 1024",
            "Unknown: data length too big to fit within 10 bits: 1639",
            "Unknown: memo too large: 1025 bytes (maxsize=1024)",
        ],
    ),
    case(
        "add: description hash of 31 bytes, of 32 with a memo",
        |s| {
            Box::pin(async move {
                let short = s.add_with(|request| request.description_hash = vec![1; 31]).await;
                let answer = s
                    .add_with(|request| (request.description_hash, request.memo) = (vec![1; 32], "cash".into()))
                    .await;
                let invoice = s.invoice(1).await;
                vec![
                    short,
                    answer,
                    named("memo", invoice.memo),
                    named("hash", invoice.description_hash == [1; 32]),
                ]
            })
        },
        &[
            "Unknown: description hash is 31 bytes, must be 32",
            "OK",
            "memo: \"cash\"",
            "hash: true",
        ],
    ),
    case(
        "add: private, with no channel that needs a hint",
        |s| {
            Box::pin(async move {
                let answer = s.add_with(|request| request.private = true).await;
                let invoice = s.invoice(1).await;
                vec![
                    answer,
                    named("private", invoice.private),
                    named("hints", invoice.route_hints.len()),
                ]
            })
        },
        &["OK", "private: false", "hints: 0"],
    ),
    case(
        "add: several mistakes at once: which is told first",
        |s| {
            Box::pin(async move {
                let all = |request: &mut AddHoldInvoiceRequest| {
                    request.memo = "x".repeat(1025);
                    request.description_hash = vec![1];
                    request.value_msat = 10_000_000_000_001_000;
                    request.expiry = 31_536_001;
                    request.cltv_expiry = 1;
                };
                let mut told = vec![
                    s.add_with(|request| {
                        all(request);
                        request.value = 1;
                        request.hash.clear();
                    })
                    .await,
                    s.add_with(|request| {
                        all(request);
                        request.value = 1;
                    })
                    .await,
                    s.add_with(all).await,
                ];
                told.push(
                    s.add_with(|request| {
                        all(request);
                        request.memo.clear();
                    })
                    .await,
                );
                let rest = |request: &mut AddHoldInvoiceRequest| {
                    all(request);
                    request.memo.clear();
                    request.description_hash.clear();
                };
                told.push(s.add_with(rest).await);
                told.push(
                    s.add_with(|request| {
                        rest(request);
                        request.value_msat = 1;
                    })
                    .await,
                );
                told
            })
        },
        &[
            "Unknown: invalid hash length of 0, want 32",
            "Unknown: sat and msat arguments are mutually exclusive",
            "Unknown: memo too large: 1025 bytes (maxsize=1024)",
            "Unknown: description hash is 1 bytes, must be 32",
            "Unknown: invoice amount 100000.00000001 BTC is too large, max is 100000 BTC",
            "Unknown: expiry of 3.1536001e+07 seconds greater than max expiry of 3.1536e+07 seconds",
        ],
    ),
];

/// Look-ups, settles and cancels by state.
pub const STATES: &[Case] = &[
    case(
        "unknown invoice: lookup, settle, cancel",
        |s| {
            Box::pin(async move {
                s.add(2).await;
                let hash = s.hash(1);
                vec![told(s.lookup_with(&hash).await), s.settle(1).await, s.cancel(1).await]
            })
        },
        &[
            "NotFound: unable to locate invoice",
            "Unknown: unable to locate invoice",
            "Unknown: unable to locate invoice",
        ],
    ),
    case(
        "bad lengths: lookup 31 and 0, settle 31 and 0, cancel 31 and 0",
        |s| {
            Box::pin(async move {
                s.add(2).await;
                let mut all = Vec::new();
                for length in [31, 0] {
                    all.push(told(s.lookup_with(&vec![1; length]).await));
                    all.push(s.settle_with(&vec![1; length]).await);
                    all.push(s.cancel_with(&vec![1; length]).await);
                }
                all
            })
        },
        &[
            "Unknown: payment hash must be exactly 32 bytes, is instead 31",
            "Unknown: invalid preimage length of 31, want 32",
            "Unknown: invalid hash length of 31, want 32",
            "NotFound: unable to locate invoice",
            "Unknown: invalid preimage length of 0, want 32",
            "Unknown: invalid hash length of 0, want 32",
        ],
    ),
    case(
        "OPEN: look, settle, add again, cancel, look",
        |s| {
            Box::pin(async move {
                s.add(1).await;
                vec![
                    s.look(1).await,
                    s.settle(1).await,
                    s.add_with(|_| ()).await,
                    s.cancel(1).await,
                    s.look(1).await,
                ]
            })
        },
        &[
            "OPEN paid 0",
            "Unknown: invoice still open",
            "Unknown: invoice with payment hash already exists",
            "OK",
            "CANCELED paid 0",
        ],
    ),
    case(
        "OPEN with a part: look, settle, add again, cancel, look, payer",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let share = Share {
                    total_msat: 1_000_000,
                    of: 2,
                    cltv: 80,
                };
                let sent = s.send(1, &request, share).await;
                vec![
                    sent,
                    s.look(1).await,
                    s.settle(1).await,
                    s.add_with(|_| ()).await,
                    s.cancel(1).await,
                    s.look(1).await,
                    s.payer(1).await,
                ]
            })
        },
        &[
            "in flight",
            "OPEN paid 0, htlc ACCEPTED 500000 of 1000000 at +0 to +80",
            "Unknown: invoice still open",
            "Unknown: invoice with payment hash already exists",
            "OK",
            "CANCELED paid 0, htlc CANCELED 500000 of 1000000 at +0 to +80",
            "INCORRECT_PAYMENT_DETAILS",
        ],
    ),
    case(
        "ACCEPTED: look, add again, settle, look, payer; the HTLC's final resolution before and after",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                vec![
                    s.look(1).await,
                    s.resolution(1).await,
                    s.add_with(|_| ()).await,
                    s.settle(1).await,
                    s.look(1).await,
                    s.payer(1).await,
                    s.finality(1).await,
                    named("preimage", s.invoice(1).await.r_preimage == s.preimage(1)),
                ]
            })
        },
        &[
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "NotFound: htlc unknown",
            "Unknown: invoice with payment hash already exists",
            "OK",
            "SETTLED paid 1000000, htlc SETTLED 1000000 of 1000000 at +0 to +80",
            "settled",
            "final: settled true, offchain true",
            "preimage: true",
        ],
    ),
    case(
        "SETTLED: settle, cancel, add again, look",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                s.settle(1).await;
                vec![
                    s.settle(1).await,
                    s.cancel(1).await,
                    s.add_with(|_| ()).await,
                    s.look(1).await,
                ]
            })
        },
        &[
            "OK",
            "Unknown: invoice already settled",
            "Unknown: invoice with payment hash already exists",
            "SETTLED paid 1000000, htlc SETTLED 1000000 of 1000000 at +0 to +80",
        ],
    ),
    case(
        "ACCEPTED, canceled: cancel, settle, cancel again, add again, look, payer, final resolution",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                vec![
                    s.cancel(1).await,
                    s.settle(1).await,
                    s.cancel(1).await,
                    s.add_with(|_| ()).await,
                    s.look(1).await,
                    s.payer(1).await,
                    s.finality(1).await,
                ]
            })
        },
        &[
            "OK",
            "Unknown: invoice already canceled",
            "OK",
            "Unknown: invoice with payment hash already exists",
            "CANCELED paid 1000000, htlc CANCELED 1000000 of 1000000 at +0 to +80",
            "INCORRECT_PAYMENT_DETAILS",
            "final: settled false, offchain true",
        ],
    ),
    case(
        "the other fields in each state",
        |s| {
            Box::pin(async move {
                let fields = async || {
                    let invoice = s.invoice(1).await;
                    let htlc = invoice.htlcs.first().cloned().unwrap_or_default();
                    format!(
                        "settle_date {}, settle_index {}, preimage {}, sat {}, chan_id {}, accept_time {}, resolve_time {}",
                        invoice.settle_date > 0,
                        invoice.settle_index > 0,
                        invoice.r_preimage.len(),
                        invoice.amt_paid_sat,
                        htlc.chan_id > 0,
                        htlc.accept_time > 0,
                        htlc.resolve_time > 0,
                    )
                };
                let request = s.add(1).await;
                let mut all = vec![fields().await];
                s.pay(1, &request).await;
                all.push(fields().await);
                s.settle(1).await;
                all.push(fields().await);
                all
            })
        },
        &[
            "settle_date false, settle_index false, preimage 0, sat 0, chan_id false, accept_time false, resolve_time false",
            "settle_date false, settle_index false, preimage 0, sat 1000, chan_id true, accept_time true, resolve_time false",
            "settle_date true, settle_index true, preimage 32, sat 1000, chan_id true, accept_time true, resolve_time true",
        ],
    ),
];

/// Macaroons, and what a node tells of itself.
pub const NODE: &[Case] = &[
    case(
        "macaroon: none, two, no hex, no macaroon, cut short, of another root key, upper case",
        |s| {
            Box::pin(async move {
                let admin = s.world.macaroon("admin.macaroon").await;
                let hex = hex::encode(&admin);
                let mut other = admin.clone();
                // The signature is the end of it.
                *other.last_mut().expect("bytes") ^= 1;
                let rows = [
                    vec![],
                    vec![hex.clone(), hex.clone()],
                    vec!["xyz".to_owned()],
                    vec!["0".to_owned()],
                    vec![String::new()],
                    vec!["00ff".to_owned()],
                    vec![hex::encode(&admin[..admin.len() - 1])],
                    vec![hex::encode(other)],
                    vec![hex.to_uppercase()],
                ];
                let mut all = Vec::new();
                for values in rows {
                    all.push(told(ask(s, &values).await));
                }
                all
            })
        },
        &[
            "Unknown: expected 1 macaroon, got 0",
            "Unknown: expected 1 macaroon, got 2",
            "Unknown: encoding/hex: invalid byte: U+0078 'x'",
            "Unknown: encoding/hex: odd length hex string",
            "Unknown: empty macaroon data",
            "Unknown: cannot determine data format of binary-encoded macaroon",
            "Unknown: unmarshal v2: field data extends past end of buffer",
            "Unknown: verification failed: signature mismatch after caveat verification",
            "OK",
        ],
    ),
    case(
        "macaroon: readonly may look and follow, not add, settle or cancel",
        |s| {
            Box::pin(async move {
                let readonly = s.world.macaroon("readonly.macaroon").await;
                let readonly = tellerd::sim::lnd::control_client::Macaroon::from_bytes(&readonly);
                let mut client = tellerd::proto::invoicesrpc::invoices_client::InvoicesClient::with_interceptor(
                    s.channel().await,
                    readonly.clone(),
                );
                let request = s.request(1);
                let settle = tellerd::proto::invoicesrpc::SettleInvoiceMsg {
                    preimage: s.preimage(1).to_vec(),
                };
                let cancel = tellerd::proto::invoicesrpc::CancelInvoiceMsg {
                    payment_hash: s.hash(1).to_vec(),
                };
                let mut all = vec![
                    told(client.add_hold_invoice(request).await),
                    told(client.settle_invoice(settle).await),
                    told(client.cancel_invoice(cancel).await),
                ];
                s.add(1).await;
                let watch = tellerd::proto::invoicesrpc::SubscribeSingleInvoiceRequest {
                    r_hash: s.hash(1).to_vec(),
                };
                all.push(told(client.subscribe_single_invoice(watch).await));
                let mut client = LightningClient::with_interceptor(s.channel().await, readonly);
                all.push(told(client.get_info(GetInfoRequest {}).await));
                all
            })
        },
        &[
            "Unknown: permission denied",
            "Unknown: permission denied",
            "Unknown: permission denied",
            "OK",
            "OK",
        ],
    ),
    case(
        "GetInfo, GetState",
        |s| {
            Box::pin(async move {
                let info = s.info().await.expect("an answer");
                vec![
                    named("identity_pubkey", info.identity_pubkey.len()),
                    named("alias", !info.alias.is_empty()),
                    named("height", info.block_height == s.world.height().await),
                    named("block_hash", info.block_hash.len()),
                    named("synced_to_chain", info.synced_to_chain),
                    named("chains", info.chains.len()),
                    named("version", info.version.split(' ').count()),
                    named("active channels", info.num_active_channels),
                    named("state", s.state().await.unwrap_or(WalletState::NonExisting)),
                ]
            })
        },
        &[
            "identity_pubkey: 66",
            "alias: true",
            "height: true",
            "block_hash: 64",
            "synced_to_chain: true",
            "chains: 1",
            "version: 2",
            "active channels: 1",
            "state: ServerActive",
        ],
    ),
];

/// GetInfo with these values of the metadata key `macaroon`.
async fn ask(s: &Script<'_>, values: &[String]) -> Result<(), Status> {
    let mut request = Request::new(GetInfoRequest {});
    for value in values {
        request.metadata_mut().append("macaroon", value.parse().expect("ASCII"));
    }
    LightningClient::new(s.channel().await)
        .get_info(request)
        .await
        .map(drop)
}
