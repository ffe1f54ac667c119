//! Time and trouble around the simulated node: its clock, its chain, its restarts, its peer.
//!
//! Faults: [`Kind::Blocks`]: 5 to 90 blocks at once, often right after a payment. [`Kind::LndRestart`]: away for up to ten minutes,
//! then locked or starting for a while; every stream is cut. [`Kind::OutOfSync`]: for up to five minutes it knows of no new block,
//! while HTLCs come nearer to their expiry. [`Kind::Peer`]: the
//! payers' peer is away for up to an hour, so that what is settled is not money yet. What must stay true: each of them ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::plan::Kind;
use super::scene::{NodeSide, Scene};
use crate::lnd::NodeState;
use crate::sim::lnd::node::Finality;
use crate::time::UnixMs;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Heights that are remembered.
const HEIGHTS: usize = 64;

/// Lets the node's own timers run.
pub async fn tick(scene: Arc<Scene>) {
    loop {
        sleep(SECOND).await;
        scene.node(|_, _| ());
    }
}

fn mine(scene: &Scene, blocks: u64) {
    scene.node(|side, now| {
        for _ in 0..blocks {
            side.node.mine(now);
        }
        let height = side.node.height();
        side.heights.push((now, height));
        if side.heights.len() > HEIGHTS {
            side.heights.remove(0);
        }
        tell_height(scene, side);
    });
    scene.step("mined", || format!("{blocks} blocks"));
}

/// Tells the height, unless it is out of sync: then it knows of no block.
fn tell_height(scene: &Scene, side: &mut NodeSide) {
    if side.unsynced.is_some() {
        return;
    }
    side.told = side.node.height();
    if !side.away {
        side.streams.mined(scene, side.told);
    }
}

/// Mines.
pub async fn blocks(scene: Arc<Scene>) {
    loop {
        let wait = scene.draw("blocks", |chance| chance.around(scene.plan.block_time));
        sleep(wait).await;
        match scene.strikes(Kind::Blocks, 60) {
            true => mine_many(&scene),
            false => mine(&scene, 1),
        }
    }
}

fn mine_many(scene: &Scene) {
    let blocks = scene.draw("blocks", |chance| chance.within(5, 90));
    mine(scene, blocks);
}

/// Right after a payment: the worst moment for many blocks.
pub fn hurry(scene: &Scene) {
    if scene.strikes(Kind::Blocks, 150) {
        mine_many(scene);
    }
}

fn enter(scene: &Scene, state: NodeState) {
    scene.node(|side, _| {
        side.state = state;
        side.away = false;
        side.node.set_watching(state == NodeState::ServerActive);
    });
    scene.step("node", || format!("{state:?}"));
}

/// Restarts the node now and then.
pub async fn restarts(scene: Arc<Scene>) {
    loop {
        let (wait, away, phase) = scene.draw("restarts", |chance| {
            let wait = chance.around(MINUTE * 12);
            let longest = if chance.per_mille(200) {
                MINUTE * 10
            } else {
                SECOND * 20
            };
            let away = chance.time(SECOND, longest);
            (wait, away, chance.time(SECOND / 10, SECOND * 30))
        });
        sleep(wait).await;
        if !scene.may(Kind::LndRestart) {
            continue;
        }
        scene.struck(Kind::LndRestart);
        scene.node(|side, _| {
            side.away = true;
            side.node.set_watching(false);
            side.streams.cut();
        });
        scene.step("node", || format!("away for {away:?}"));
        scene.troubled_at_lnd(scene.now().plus(away + phase));
        sleep(away).await;
        for state in [NodeState::NotStarted, NodeState::Locked, NodeState::RpcActive] {
            enter(&scene, state);
            sleep(phase / 3).await;
        }
        enter(&scene, NodeState::ServerActive);
    }
}

/// Takes it out of sync now and then.
pub async fn sync(scene: Arc<Scene>) {
    let turn = |synced: bool| {
        scene.node(|side, now| {
            side.unsynced = (!synced).then_some(now);
            tell_height(&scene, side);
            scene.troubled_at_lnd(now);
        });
        scene.step("node", || format!("in sync: {synced}"));
    };
    loop {
        let (wait, out) = scene.draw("sync", |chance| (chance.around(MINUTE * 15), chance.around(MINUTE)));
        sleep(wait).await;
        if scene.may(Kind::OutOfSync) {
            scene.struck(Kind::OutOfSync);
            scene.troubled_at_lnd(scene.now().plus(out));
            turn(false);
            sleep(out).await;
            turn(true);
        }
    }
}

/// Takes the payers' peer away now and then.
pub async fn peer(scene: Arc<Scene>) {
    let turn = |order: Finality| {
        scene.node(|side, now: UnixMs| side.node.set_finality(order, now));
        scene.step("peer", || format!("{order:?}"));
    };
    loop {
        let (wait, away) = scene.draw("peer", |chance| {
            (chance.around(MINUTE * 10), chance.around(MINUTE * 12))
        });
        sleep(wait).await;
        if scene.may(Kind::Peer) {
            scene.struck(Kind::Peer);
            turn(Finality::Hold);
            sleep(away).await;
            turn(Finality::Release);
        }
    }
}
