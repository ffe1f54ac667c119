//! SubscribeSingleInvoice and RegisterBlockEpochNtfn: which messages come, in which order, and how a stream ends.

use tellerd::proto::chainrpc::BlockEpoch;

use super::script::{named, timed, told};
use super::{Case, Ending, Share, case};

/// None of these ends the node.
pub const QUIET: &[Case] = &[
    case(
        "followed before it is added, paid, settled",
        |s| {
            Box::pin(async move {
                let mut watch = s.watch(1).await;
                // Round trips on other connections: a stream that answers at once has answered by then.
                for _ in 0..5 {
                    s.info().await.expect("an answer");
                }
                let silent = !watch.is_answered();
                let request = s.add(1).await;
                let mut all = vec![named("silent", silent), s.next(&mut watch).await];
                s.pay(1, &request).await;
                s.settle(1).await;
                all.extend(s.rest(&mut watch).await);
                all
            })
        },
        &[
            "silent: true",
            "OPEN paid 0",
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "SETTLED paid 1000000, htlc SETTLED 1000000 of 1000000 at +0 to +80",
            "end: OK",
        ],
    ),
    case(
        "two followers, parts, cancel",
        |s| {
            Box::pin(async move {
                let request = s.add(1).await;
                let (mut one, mut two) = (s.watch(1).await, s.watch(1).await);
                let mut all = vec![s.next(&mut one).await, s.next(&mut two).await];
                let half = Share {
                    total_msat: 1_000_000,
                    of: 2,
                    cltv: 80,
                };
                s.send(1, &request, half).await;
                s.send(1, &request, half).await;
                s.cancel(1).await;
                let (one, two) = (s.rest(&mut one).await, s.rest(&mut two).await);
                all.push(named("the same", one == two));
                all.extend(one);
                all
            })
        },
        &[
            "OPEN paid 0",
            "OPEN paid 0",
            "the same: true",
            "ACCEPTED paid 1000000, htlc ACCEPTED 500000 of 1000000 at +0 to +80, htlc ACCEPTED 500000 of 1000000 at +0 to +80",
            "CANCELED paid 1000000, htlc CANCELED 500000 of 1000000 at +0 to +80, htlc CANCELED 500000 of 1000000 at +0 to +80",
            "end: OK",
        ],
    ),
    case(
        "followed when ACCEPTED, SETTLED, CANCELED",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                let mut held = s.watch(1).await;
                let mut all = vec![s.next(&mut held).await];
                s.settle(1).await;
                all.extend(s.rest(&mut s.watch(1).await).await);
                s.add(2).await;
                s.cancel(2).await;
                all.extend(s.rest(&mut s.watch(2).await).await);
                all
            })
        },
        &[
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "SETTLED paid 1000000, htlc SETTLED 1000000 of 1000000 at +0 to +80",
            "end: OK",
            "CANCELED paid 0",
            "end: OK",
        ],
    ),
    case(
        "calls that change nothing are not told to followers",
        |s| {
            Box::pin(async move {
                s.held(1).await;
                let mut watch = s.watch(1).await;
                let first = s.next(&mut watch).await;
                s.add_with(|_| ()).await;
                s.settle_with(&[0; 32]).await;
                s.cancel(1).await;
                s.cancel(1).await;
                s.settle(1).await;
                [vec![first], s.rest(&mut watch).await].concat()
            })
        },
        &[
            "ACCEPTED paid 1000000, htlc ACCEPTED 1000000 of 1000000 at +0 to +80",
            "CANCELED paid 1000000, htlc CANCELED 1000000 of 1000000 at +0 to +80",
            "end: OK",
        ],
    ),
    case(
        "a hash of 31 bytes",
        |s| {
            Box::pin(async move {
                let request = tellerd::proto::invoicesrpc::SubscribeSingleInvoiceRequest { r_hash: vec![1; 31] };
                let answer = s.invoices().await.subscribe_single_invoice(request).await;
                match answer {
                    Ok(stream) => vec!["answered".into(), told(stream.into_inner().message().await)],
                    Err(status) => vec![told(Err::<(), _>(status))],
                }
            })
        },
        &["Unknown: invalid hash length of 31, want 32"],
    ),
    case(
        "blocks: the current one at once, then each one, in order",
        |s| {
            Box::pin(async move {
                let height = s.world.height().await;
                let request = BlockEpoch {
                    hash: Vec::new(),
                    height: 0,
                };
                let mut blocks = timed(s.chain().await.register_block_epoch_ntfn(request))
                    .await
                    .expect("an answer")
                    .into_inner();
                let mut all = Vec::new();
                let mut next = async || {
                    let block = timed(blocks.message()).await.expect("a message").expect("no end");
                    format!(
                        "+{}, hash of {}",
                        i64::from(block.height) - i64::from(height),
                        block.hash.len()
                    )
                };
                all.push(next().await);
                s.world.mine(3).await;
                for _ in 0..3 {
                    all.push(next().await);
                }
                all
            })
        },
        &["+0, hash of 32", "+1, hash of 32", "+2, hash of 32", "+3, hash of 32"],
    ),
];

/// The node ends under streams.
pub const ENDS: &[Case] = &[
    case(
        "LND ends in good order under streams: OPEN, ACCEPTED, unknown, blocks",
        |s| {
            Box::pin(async move {
                // LND does not wait for what its streams still say: which of the two comes is a matter of luck.
                let cut = |end: &String| end.contains("h2 protocol error") || end.contains("transport error");
                let mut all = ends(s, Ending::Clean).await;
                for end in &mut all[..3] {
                    if end == "end: OK" || cut(end) {
                        *end = "end: OK, or cut".to_owned();
                    }
                }
                if all[3] == "Unknown: chain notifier shutting down" || cut(&all[3]) {
                    all[3] = "Unknown: chain notifier shutting down, or cut".to_owned();
                }
                s.cancel(1).await;
                s.cancel(2).await;
                all
            })
        },
        &[
            "end: OK, or cut",
            "end: OK, or cut",
            "end: OK, or cut",
            "Unknown: chain notifier shutting down, or cut",
        ],
    ),
    case(
        "LND is killed under streams: OPEN, ACCEPTED, unknown, blocks",
        |s| {
            Box::pin(async move {
                let all = ends(s, Ending::Killed).await;
                s.cancel(1).await;
                s.cancel(2).await;
                all
            })
        },
        &[
            "end: Unknown: h2 protocol error: error reading a body from connection",
            "end: Unknown: h2 protocol error: error reading a body from connection",
            "end: Unknown: transport error",
            "Unknown: h2 protocol error: error reading a body from connection",
        ],
    ),
];

async fn ends(s: &super::Script<'_>, how: Ending) -> Vec<String> {
    s.add(1).await;
    s.held(2).await;
    let mut watches = [s.watch(1).await, s.watch(2).await];
    for watch in &mut watches {
        s.next(watch).await;
    }
    let mut unknown = s.watch(3).await;
    let request = BlockEpoch {
        hash: Vec::new(),
        height: 0,
    };
    let mut blocks = s
        .chain()
        .await
        .register_block_epoch_ntfn(request)
        .await
        .expect("an answer")
        .into_inner();
    timed(blocks.message()).await.expect("a first block");
    s.info().await.expect("an answer");
    s.world.end(how).await;
    let mut all = Vec::new();
    for watch in &mut watches {
        all.push(s.next(watch).await);
    }
    all.push(s.next(&mut unknown).await);
    all.push(told(timed(blocks.message()).await.map(drop)));
    s.world.start_locked().await;
    s.reaches(tellerd::proto::lnrpc::WalletState::Locked).await;
    s.world.unlock().await;
    s.world.ready().await;
    all
}
