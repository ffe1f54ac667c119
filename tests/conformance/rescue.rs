//! What LND does between RPC_ACTIVE and SERVER_ACTIVE, and with HTLCs that are over: the inferences of the fact sheet.

use tellerd::proto::chainrpc::BlockEpoch;
use tellerd::proto::lnrpc::WalletState;

use super::script::{named, timed, told};
use super::{Case, Ending, Script, Share, case};

/// Enough to be worth a transaction on chain.
const PRICE_MSAT: u64 = 200_000_000;
const CLTV: u32 = 40;
const WHOLE: Share = Share {
    total_msat: PRICE_MSAT,
    of: 1,
    cltv: CLTV,
};
const LEFT_ALONE: &str = "ACCEPTED paid 200000000, htlc ACCEPTED 200000000 of 200000000 at +0 to +40";
const SETTLED: &str = "SETTLED paid 200000000, htlc SETTLED 200000000 of 200000000 at +0 to +40";
const CANCELED: &str = "CANCELED paid 200000000, htlc CANCELED 200000000 of 200000000 at +0 to +40";

/// With code Unavailable from v0.21 on, Unknown before.
const NOT_YET: &str = ": chain notifier RPC is still in the process of starting";
const BLOCKS_EITHER: &str = "chain notifier RPC is still in the process of starting, or OK";

/// The channel is used on and stays open.
pub const OPEN_CHANNEL: &[Case] = &[
    case(
        "RPC_ACTIVE: what answers, what waits",
        |s| Box::pin(rpc_active(s)),
        &[
            LEFT_ALONE,
            BLOCKS_EITHER,
            LEFT_ALONE,
            "added: OPEN paid 0",
            "add answered: false",
            "OK",
            "canceled: CANCELED paid 200000000, htlc CANCELED 200000000 of 200000000 at +0 to +40",
            "Unknown: invoice with payment hash already exists",
            "then",
            "add: OK",
            CANCELED,
            "end: OK",
            "INCORRECT_PAYMENT_DETAILS",
        ],
    ),
    case(
        "down to E - delta, settled in RPC_ACTIVE: the watcher comes too late, the money arrives",
        |s| {
            Box::pin(async move {
                let mut all = vec![down(s, CLTV - s.delta().await).await];
                all.push(s.settle(1).await);
                all.push(s.look(1).await);
                s.world.go_on().await;
                s.world.ready().await;
                all.push(s.payer(1).await);
                all.push(s.look(1).await);
                all
            })
        },
        &[LEFT_ALONE, "OK", SETTLED, "settled", SETTLED],
    ),
    case(
        "down to E - delta, nobody settles: canceled at the start",
        |s| {
            Box::pin(async move {
                let mut all = vec![down(s, CLTV - s.delta().await).await];
                s.world.go_on().await;
                s.world.ready().await;
                all.push(s.becomes(1, "CANCELED").await);
                all.push(s.payer(1).await);
                all
            })
        },
        &[LEFT_ALONE, CANCELED, "INCORRECT_PAYMENT_DETAILS"],
    ),
    case(
        "down to one block before E - delta, nobody settles: still held",
        |s| {
            Box::pin(async move {
                let mut all = vec![down(s, CLTV - s.delta().await - 1).await];
                s.world.go_on().await;
                s.world.ready().await;
                all.push(s.look(1).await);
                all.push(s.cancel(1).await);
                all.push(s.payer(1).await);
                all
            })
        },
        &[LEFT_ALONE, LEFT_ALONE, "OK", "INCORRECT_PAYMENT_DETAILS"],
    ),
];

/// The channel is closed by it: LND, knowing the preimage 16 blocks or less before E, goes on chain.
pub const CLAIM: &[Case] = &[case(
    "down past E - 16, settled in RPC_ACTIVE: claimed on chain, the money arrives",
    |s| {
        Box::pin(async move {
            let mut all = vec![down(s, CLTV - 8).await];
            all.push(s.settle(1).await);
            all.push(s.look(1).await);
            s.world.go_on().await;
            s.reaches(WalletState::ServerActive).await;
            s.world.confirm().await;
            all.push(s.payer(1).await);
            // The payer knows the preimage from the mempool; the node waits for its own transactions.
            for _ in 0..12 {
                s.world.mine(1).await;
            }
            all.push(s.finality(1).await);
            all
        })
    },
    &[
        LEFT_ALONE,
        "OK",
        SETTLED,
        "settled",
        "final: settled true, offchain false",
    ],
)];

/// The channel is closed by the payer's node, which takes the HTLC back on chain.
pub const LATE: &[Case] = &[case(
    "down past E, taken back on chain, settled in RPC_ACTIVE: OK and SETTLED, and no money",
    |s| {
        Box::pin(async move {
            let mut all = vec![offered(s).await];
            s.world.end(Ending::Clean).await;
            s.world.mine_alone(CLTV + 1).await;
            s.world.confirm().await;
            all.push(s.payer(1).await);
            s.world.rpc_active(1).await;
            all.push(s.look(1).await);
            all.push(s.settle(1).await);
            all.push(s.look(1).await);
            s.world.go_on().await;
            s.reaches(WalletState::ServerActive).await;
            s.world.confirm().await;
            all.push(s.look(1).await);
            all.push(s.payer(1).await);
            all.push(s.finality(1).await);
            all
        })
    },
    &[
        "in flight",
        "PERMANENT_CHANNEL_FAILURE",
        LEFT_ALONE,
        "OK",
        SETTLED,
        SETTLED,
        "PERMANENT_CHANNEL_FAILURE",
        "final: settled false, offchain false",
    ],
)];

/// Invoice 1 is held.
async fn offered(s: &Script<'_>) -> String {
    let mut ask = s.request(1);
    (ask.cltv_expiry, ask.value_msat) = (CLTV.into(), i64::try_from(PRICE_MSAT).expect("an amount"));
    let request = s.try_add(ask).await.expect("added").payment_request;
    s.send(1, &request, WHOLE).await
}

/// Invoice 1 is held, LND is down while so many blocks are found, and is RPC_ACTIVE: the invoice.
async fn down(s: &Script<'_>, blocks: u32) -> String {
    assert_eq!(offered(s).await, "in flight");
    s.world.end(Ending::Clean).await;
    s.world.rpc_active(blocks).await;
    s.look(1).await
}

async fn rpc_active(s: &Script<'_>) -> Vec<String> {
    assert_eq!(offered(s).await, "in flight");
    s.world.end(Ending::Clean).await;
    // GetInfo's `synced_to_chain` is false at first and true later in this state.
    s.world.rpc_active(15).await;
    let mut all = vec![s.look(1).await];
    let request = BlockEpoch {
        hash: Vec::new(),
        height: 0,
    };
    let blocks = match timed(s.chain().await.register_block_epoch_ntfn(request)).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => told(Err::<(), _>(status)),
    };
    // RPC_ACTIVE is a stretch of time, and somewhere in it LND's chain notifier starts.
    let either = blocks == "OK" || blocks.ends_with(NOT_YET);
    all.push(if either { BLOCKS_EITHER.to_owned() } else { blocks });
    let mut watch = s.watch(1).await;
    all.push(s.next(&mut watch).await);
    let (mut client, request) = (s.invoices().await, s.request(2));
    let add = tokio::spawn(async move { client.add_hold_invoice(request).await });
    all.push(format!("added: {}", s.becomes(2, "OPEN").await));
    for _ in 0..5 {
        s.look(2).await;
    }
    all.push(named("add answered", add.is_finished()));
    all.push(s.cancel(1).await);
    all.push(format!("canceled: {}", s.look(1).await));
    let mut again = s.request(2);
    again.memo = "again".to_owned();
    all.push(told(s.try_add(again).await));
    all.push("then".to_owned());
    s.world.go_on().await;
    all.push(format!(
        "add: {}",
        told(timed(add).await.expect("the call does not panic"))
    ));
    s.world.ready().await;
    all.extend(s.rest(&mut watch).await);
    all.push(s.payer(1).await);
    all
}
