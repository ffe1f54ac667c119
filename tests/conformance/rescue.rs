//! What LND does between RPC_ACTIVE and SERVER_ACTIVE, and with HTLCs that are over: the inferences of the fact sheet.

use super::{Case, Ending, Share, case};

const WHOLE: Share = Share {
    total_msat: 1_000_000,
    of: 1,
    cltv: 40,
};

/// The channel is used on and stays open.
pub const OPEN_CHANNEL: &[Case] = &[
    case(
        "down past E - delta, settled in RPC_ACTIVE",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.cltv_expiry = 40;
                let request = s.try_add(ask).await.expect("added").payment_request;
                let mut all = vec![s.send(1, &request, WHOLE).await];
                s.world.end(Ending::Clean).await;
                s.world.rpc_active(30).await;
                all.push(s.look(1).await);
                all.push(s.settle(1).await);
                all.push(s.look(1).await);
                s.world.go_on().await;
                s.world.ready().await;
                all.push(s.payer(1).await);
                all
            })
        },
        &["?"],
    ),
    case(
        "down past E - delta, nobody settles: canceled at the start",
        |s| {
            Box::pin(async move {
                let mut ask = s.request(1);
                ask.cltv_expiry = 40;
                let request = s.try_add(ask).await.expect("added").payment_request;
                let mut all = vec![s.send(1, &request, WHOLE).await];
                s.world.end(Ending::Clean).await;
                s.world.rpc_active(30).await;
                all.push(s.look(1).await);
                s.world.go_on().await;
                s.world.ready().await;
                all.push(s.becomes(1, "CANCELED").await);
                all.push(s.payer(1).await);
                all
            })
        },
        &["?"],
    ),
];
