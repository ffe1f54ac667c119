//! HTLCs as they come and go: sets, amounts, time locks, the channel's limit. Sections 3 and 6.

use std::time::Duration;

use super::script::{named, told};
use super::{Case, MAX_HTLCS, Share, case};

const WHOLE: Share = Share {
    total_msat: 1_000_000,
    of: 1,
    cltv: 80,
};
const HALF: Share = Share {
    total_msat: 1_000_000,
    of: 2,
    cltv: 80,
};

/// All of them leave the channel as it was.
pub const ALL: &[Case] = &[
    case(
        "two parts: ACCEPTED with the second",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let first = s.send(1, &request, HALF).await;
                let open = s.look(1).await;
                let second = s.send(1, &request, HALF).await;
                vec![
                    first,
                    open,
                    second,
                    s.look(1).await,
                    s.settle(1).await,
                    s.look(1).await,
                    s.payer(1).await,
                ]
            })
        },
        &[
            "in flight",
            "OPEN paid 0, htlc ACCEPTED 500000 of 1000000 at +0 to +80",
            "in flight",
            "ACCEPTED paid 1000000, htlc ACCEPTED 500000 of 1000000 at +0 to +80, htlc ACCEPTED 500000 of 1000000 at +0 to +80",
            "OK",
            "SETTLED paid 1000000, htlc SETTLED 500000 of 1000000 at +0 to +80, htlc SETTLED 500000 of 1000000 at +0 to +80",
            "settled, settled",
        ],
    ),
    case(
        "a part alone is back after 120 s, and does not count for the next set",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                // Others find blocks meanwhile.
                let part = Share { cltv: 500, ..HALF };
                let first = s.send(1, &request, part).await;
                s.world.pass(Duration::from_secs(121)).await;
                let payer = s.payer(1).await;
                let state = s.invoice(1).await.state().as_str_name().to_owned();
                let second = s.send(1, &request, part).await;
                let still = s.invoice(1).await.state().as_str_name().to_owned();
                vec![first, payer, state, second, still, s.cancel(1).await, s.payer(1).await]
            })
        },
        &[
            "in flight",
            "MPP_TIMEOUT",
            "OPEN",
            "in flight",
            "OPEN",
            "OK",
            "MPP_TIMEOUT, INCORRECT_PAYMENT_DETAILS",
        ],
    )
    .slow(),
    case(
        "overpaid",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let sent = s
                    .send(
                        1,
                        &request,
                        Share {
                            total_msat: 2_500_001,
                            ..WHOLE
                        },
                    )
                    .await;
                vec![
                    sent,
                    s.look(1).await,
                    s.settle(1).await,
                    s.look(1).await,
                    s.payer(1).await,
                ]
            })
        },
        &[
            "in flight",
            "ACCEPTED paid 2500001, htlc ACCEPTED 2500001 of 2500001 at +0 to +80",
            "OK",
            "SETTLED paid 2500001, htlc SETTLED 2500001 of 2500001 at +0 to +80",
            "settled",
        ],
    ),
    case(
        "overpaid in two parts, each the whole price",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let twice = Share {
                    total_msat: 2_000_000,
                    ..HALF
                };
                let first = s.send(1, &request, twice).await;
                let state = s.look(1).await;
                let second = s.send(1, &request, twice).await;
                vec![
                    first,
                    state,
                    second,
                    s.look(1).await,
                    s.cancel(1).await,
                    s.payer(1).await,
                ]
            })
        },
        &[
            "in flight",
            "OPEN paid 0, htlc ACCEPTED 1000000 of 2000000 at +0 to +80",
            "in flight",
            "ACCEPTED paid 2000000, htlc ACCEPTED 1000000 of 2000000 at +0 to +80, htlc ACCEPTED 1000000 of 2000000 at +0 to +80",
            "OK",
            "INCORRECT_PAYMENT_DETAILS, INCORRECT_PAYMENT_DETAILS",
        ],
    ),
    case(
        "underpaid by 1 msat",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let sent = s
                    .send(
                        1,
                        &request,
                        Share {
                            total_msat: 999_999,
                            ..WHOLE
                        },
                    )
                    .await;
                vec![sent, s.look(1).await]
            })
        },
        &["INCORRECT_PAYMENT_DETAILS", "OPEN paid 0"],
    ),
    case(
        "an any-amount invoice takes what comes",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.value_msat = 0;
                let request = s.try_add(ask).await.expect("added").payment_request;
                let sent = s
                    .send(
                        1,
                        &request,
                        Share {
                            total_msat: 1_234,
                            ..WHOLE
                        },
                    )
                    .await;
                vec![sent, s.look(1).await, s.cancel(1).await, s.payer(1).await]
            })
        },
        &[
            "in flight",
            "ACCEPTED paid 1234, htlc ACCEPTED 1234 of 1234 at +0 to +80",
            "OK",
            "INCORRECT_PAYMENT_DETAILS",
        ],
    ),
    case(
        "an HTLC that expires a block too soon, and one that just does not; cltv_expiry 80 and 24",
        |s| {
            Box::pin(async move {
                let mut all = Vec::new();
                for (n, cltv) in [(1, 80), (2, 24)] {
                    let mut ask = s.request(n);
                    ask.cltv_expiry = cltv.into();
                    let request = s.try_add(ask).await.expect("added").payment_request;
                    all.push(
                        s.send(
                            n,
                            &request,
                            Share {
                                cltv: cltv - 1,
                                ..WHOLE
                            },
                        )
                        .await,
                    );
                    all.push(s.send(n, &request, Share { cltv, ..WHOLE }).await);
                    all.push(s.look(n).await);
                    s.cancel(n).await;
                    s.payer(n).await;
                }
                all
            })
        },
        &[
            "INCORRECT_PAYMENT_DETAILS",
            "in flight",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "INCORRECT_PAYMENT_DETAILS",
            "in flight",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +24",
        ],
    ),
    case(
        "an HTLC after the invoice was canceled",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                s.cancel(1).await;
                vec![s.send(1, &request, WHOLE).await, s.look(1).await]
            })
        },
        &["INCORRECT_PAYMENT_DETAILS", "CANCELED paid 0"],
    ),
    case(
        "an HTLC after the invoice expired",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.expiry = 1;
                let request = s.try_add(ask).await.expect("added").payment_request;
                s.world.pass(Duration::from_millis(1_100)).await;
                let gone = s.becomes(1, "CANCELED").await;
                vec![
                    gone,
                    s.send(1, &request, WHOLE).await,
                    s.settle(1).await,
                    s.cancel(1).await,
                ]
            })
        },
        &[
            "CANCELED paid 0",
            "INCORRECT_PAYMENT_DETAILS",
            "Unknown: invoice already canceled",
            "OK",
        ],
    ),
    case(
        "an ACCEPTED invoice does not expire by time, one with a part does",
        |s| {
            Box::pin(async move {
                let mut requests = Vec::new();
                for n in [1, 2] {
                    let mut ask = s.request(n);
                    ask.expiry = 4;
                    requests.push(s.try_add(ask).await.expect("added").payment_request);
                }
                let held = s.send(1, &requests[0], WHOLE).await;
                let part = s.send(2, &requests[1], HALF).await;
                s.world.pass(Duration::from_millis(4_100)).await;
                let gone = s.becomes(2, "CANCELED").await;
                let still = s.look(1).await;
                s.cancel(1).await;
                vec![held, part, gone, s.payer(2).await, still]
            })
        },
        &[
            "in flight",
            "in flight",
            "CANCELED paid 0, htlc CANCELED 500000 of 1000000 at +0 to +80",
            "INCORRECT_PAYMENT_DETAILS",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
        ],
    ),
    case(
        "force: held to one block before holdexpirydelta, then one more, then past the HTLC's expiry",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.cltv_expiry = 24;
                let request = s.try_add(ask).await.expect("added").payment_request;
                let mut all = vec![s.send(1, &request, Share { cltv: 24, ..WHOLE }).await];
                let delta = s.delta().await;
                s.world.mine(24 - delta - 1).await;
                all.push(s.look(1).await);
                s.world.mine(1).await;
                all.push(s.becomes(1, "CANCELED").await);
                all.push(format!("{delta} blocks left"));
                all.push(s.payer(1).await);
                s.world.mine(24).await;
                all.push(named(
                    "active channels",
                    s.info().await.expect("an answer").num_active_channels,
                ));
                all
            })
        },
        &[
            "in flight",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +24",
            "CANCELED paid 1000000, htlc CANCELED 1000000 of 1000000 at +0 to +24",
            "18 blocks left",
            "INCORRECT_PAYMENT_DETAILS",
            "active channels: 1",
        ],
    )
    .before_21(&[
        "in flight",
        "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +24",
        "CANCELED paid 1000000, htlc CANCELED 1000000 of 1000000 at +0 to +24",
        "12 blocks left",
        "INCORRECT_PAYMENT_DETAILS",
        "active channels: 1",
    ]),
    case(
        "a set ends by the lowest expiry in it",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.cltv_expiry = 24;
                let request = s.try_add(ask).await.expect("added").payment_request;
                s.send(1, &request, Share { cltv: 60, ..HALF }).await;
                s.world.mine(1).await;
                s.send(1, &request, Share { cltv: 24, ..HALF }).await;
                s.world.mine(25 - s.delta().await - 2).await;
                let before = s.look(1).await;
                s.world.mine(1).await;
                vec![before, s.becomes(1, "CANCELED").await, s.payer(1).await]
            })
        },
        &[
            "ACCEPTED paid 1000000, htlc ACCEPTED 500000 of 1000000 at +0 to +60, htlc ACCEPTED 500000 of 1000000 at +1 to +25",
            "CANCELED paid 1000000, htlc CANCELED 500000 of 1000000 at +0 to +60, htlc CANCELED 500000 of 1000000 at +1 to +25",
            "INCORRECT_PAYMENT_DETAILS, INCORRECT_PAYMENT_DETAILS",
        ],
    ),
    case(
        "settle and cancel at once: one of them wins",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                let (settled, canceled) = tokio::join!(s.settle(1), s.cancel(1));
                let (state, payer) = (s.look(1).await, s.payer(1).await);
                let settle_won = (&*settled, &*canceled) == ("OK", "Unknown: invoice already settled");
                let cancel_won = (&*settled, &*canceled) == ("Unknown: invoice already canceled", "OK");
                vec![
                    named("one wins", settle_won || cancel_won),
                    named("the payer agrees", (payer == "settled") == settle_won),
                    named("the state agrees", state.starts_with("SETTLED") == settle_won),
                    told(Ok::<(), tonic::Status>(())),
                ]
            })
        },
        &[
            "one wins: true",
            "the payer agrees: true",
            "the state agrees: true",
            "OK",
        ],
    ),
];

/// With no other HTLC in the channel.
pub const FULL: &[Case] = &[case(
    "the channel is full of HTLCs: one more fails, a cancel makes room",
    |s| {
        Box::pin(async move {
            for n in 1..=u8::try_from(MAX_HTLCS).expect("few") + 1 {
                let request = s.add(n).await;
                let sent = s.send(n, &request, WHOLE).await;
                if sent != "in flight" {
                    let told = vec![sent, s.look(n).await, s.cancel(1).await, s.payer(1).await];
                    let again = s.send(n, &request, WHOLE).await;
                    for held in 2..=n {
                        s.cancel(held).await;
                        s.payer(held).await;
                    }
                    return [told, vec![again, named("fit", n - 1)]].concat();
                }
            }
            vec!["it is never full".to_owned()]
        })
    },
    &[
        "TEMPORARY_CHANNEL_FAILURE",
        "OPEN paid 0",
        "OK",
        "INCORRECT_PAYMENT_DETAILS",
        "in flight",
        "fit: 8",
    ],
)];
