//! The node's life: locked, starting, started again; what is kept over it. Sections 3, 4 and 6.

use tellerd::proto::lnrpc::WalletState;

use super::script::{named, told};
use super::{Case, Ending, Script, Share, case};

/// All of them leave the channel as it was.
pub const ALL: &[Case] = &[
    case(
        "locked: GetState, and what calls answer",
        |s| {
            Box::pin(async move {
                s.world.end(Ending::Clean).await;
                s.world.start_locked().await;
                s.reaches(WalletState::Locked).await;
                let all = vec![
                    told(s.info().await),
                    s.settle(1).await,
                    s.add_with(|_| ()).await,
                    s.next(&mut s.watch(1).await).await,
                ];
                back(s).await;
                all
            })
        },
        &[
            "Unknown: wallet locked, unlock it to enable full RPC access",
            "Unknown: wallet locked, unlock it to enable full RPC access",
            "Unknown: wallet locked, unlock it to enable full RPC access",
            "end: Unknown: wallet locked, unlock it to enable full RPC access",
        ],
    ),
    case(
        "unlocked, not yet RPC_ACTIVE: what calls answer",
        |s| {
            Box::pin(async move {
                s.world.end(Ending::Clean).await;
                s.world.start_locked().await;
                s.reaches(WalletState::Locked).await;
                s.world.unlock().await;
                let all = starting(s).await;
                s.world.ready().await;
                all
            })
        },
        &["Unknown: the RPC server is in the process of starting up, but not yet ready to accept calls"],
    ),
    case(
        "holds outlast a kill: half settled, half canceled after it",
        |s| {
            Box::pin(async move {
                for n in 1..=6 {
                    s.held(n).await;
                }
                s.settle(1).await;
                s.cancel(2).await;
                let mut all = vec![s.payer(1).await, s.payer(2).await];
                s.world.end(Ending::Killed).await;
                s.world.start_locked().await;
                s.reaches(WalletState::Locked).await;
                back(s).await;
                for n in 1..=6 {
                    all.push(s.look(n).await);
                }
                all.push(s.settle(3).await);
                all.push(s.settle(4).await);
                all.push(s.cancel(5).await);
                all.push(s.cancel(6).await);
                for n in 3..=6 {
                    all.push(s.payer(n).await);
                }
                all
            })
        },
        &[
            "settled",
            "INCORRECT_PAYMENT_DETAILS",
            "SETTLED paid 1000000, htlc SETTLED 1000000 of 1000000 at +0 to +80",
            "CANCELED paid 1000000, htlc CANCELED 1000000 of 1000000 at +0 to +80",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "OK",
            "OK",
            "OK",
            "OK",
            "settled",
            "settled",
            "INCORRECT_PAYMENT_DETAILS",
            "INCORRECT_PAYMENT_DETAILS",
        ],
    ),
    case(
        "a part outlasts a clean restart: still OPEN, completed after it",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let half = Share {
                    total_msat: 1_000_000,
                    of: 2,
                    cltv: 80,
                };
                s.send(1, &request, half).await;
                s.world.end(Ending::Clean).await;
                s.world.start_locked().await;
                s.reaches(WalletState::Locked).await;
                back(s).await;
                let part = s.look(1).await;
                let second = s.send(1, &request, half).await;
                vec![part, second, s.look(1).await, s.settle(1).await, s.payer(1).await]
            })
        },
        &[
            "OPEN paid 0, htlc ACCEPTED 500000 of 1000000 at +0 to +80",
            "in flight",
            "ACCEPTED paid 1000000, htlc ACCEPTED 500000 of 1000000 at +0 to +80, htlc ACCEPTED 500000 of 1000000 at +0 to +80",
            "OK",
            "settled, settled",
        ],
    ),
    case(
        "the payer's node restarts while held: nothing changes; settled while it is away: SETTLED at once",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                s.world.payer_stops().await;
                s.world.payer_starts().await;
                let held = s.look(1).await;
                s.world.payer_stops().await;
                let settled = s.settle(1).await;
                let shown = s.look(1).await;
                let pending = s.resolution(1).await;
                s.world.payer_starts().await;
                vec![held, settled, shown, pending, s.payer(1).await, s.finality(1).await]
            })
        },
        &[
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "OK",
            "SETTLED paid 1000000, htlc SETTLED 1000000 of 1000000 at +0 to +80",
            "NotFound: htlc unknown",
            "settled",
            "final: settled true, offchain true",
        ],
    ),
    case(
        "expired by time while LND is down: canceled at its start",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.expiry = 1;
                s.try_add(ask).await.expect("added");
                s.world.end(Ending::Killed).await;
                s.world.pass(std::time::Duration::from_millis(1_100)).await;
                s.world.start_locked().await;
                s.reaches(WalletState::Locked).await;
                back(s).await;
                vec![s.becomes(1, "CANCELED").await]
            })
        },
        &["CANCELED paid 0"],
    ),
];

async fn back(s: &Script<'_>) {
    s.world.unlock().await;
    s.world.ready().await;
}

/// What LookupInvoice answers between LOCKED and RPC_ACTIVE, each answer once.
async fn starting(s: &Script<'_>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for _ in 0..2_000 {
        let answer = told(s.lookup_with(&s.hash(1)).await);
        if answer.contains("locate") || answer == "OK" {
            break;
        }
        if !answer.contains("locked") && !all.contains(&answer) {
            all.push(answer);
        }
        if s.world.name() == "simulated" && !all.is_empty() {
            break;
        }
    }
    all.push(named("looks", all.len()));
    all.pop();
    all
}
