//! Machines stand apart: one that is slow or broken delays no other.
#![allow(clippy::expect_used, clippy::panic)]

use futures_util::future::join_all;
use tellerd::hardware::puloon::emulator::{Fault, Target};

use crate::fleet_rig::{Plan, machine, run, until};

const GOOD: [&str; 6] = ["good-1", "good-2", "good-3", "good-4", "good-5", "good-6"];

/// One stands still in its dispense, one at every question, one does not hear its order: the customers of all others are served,
/// each several times, before anybody lets the first two go on. Were one of them waited for, nobody would ever let it go.
#[test]
fn one_slow_or_broken_machine_never_delays_another() {
    let names = ["slow", "silent", "broken"].into_iter().chain(GOOD);
    let plan = Plan {
        machines: names.map(|name| (name, machine())).collect(),
        ..Plan::default()
    };
    run(plan, async |rig| {
        rig.dispensers["slow"].hold_at(Some(Target::Dispense));
        let (slow, silent) = (rig.start("slow", 6000).await, rig.start("silent", 6000).await);
        let broken = rig.start("broken", 6000).await;
        let deaf = Fault::NoAck { carried_out: false };
        rig.dispensers["broken"].inject(deaf.next());
        rig.dispensers["silent"].hold_at(Some(Target::Status));
        let waiting = [&slow, &silent, &broken].map(|cashout| rig.pay(cashout));
        rig.reaches(slow.id, "dispensing").await;
        join_all(GOOD.map(async |name| {
            for _ in 0..3 {
                rig.serve(name).await;
            }
        }))
        .await;
        for name in ["slow", "silent"] {
            assert_eq!(rig.physical(name).0, 0, "{name} still stands");
        }
        assert!(!rig.fleet.cashout(slow.id).await.expect("known").has_ended());
        rig.dispensers["slow"].hold_at(None);
        rig.dispensers["silent"].hold_at(None);
        rig.reaches(slow.id, "completed").await;
        // Whether the others' customers get notes or money depends on how long their machines were waited for.
        for (payment, cashout) in waiting.into_iter().zip([&slow, &silent, &broken]) {
            let known = async || rig.fleet.cashout(cashout.id).await.expect("known");
            until("the end of each", async || known().await.has_ended()).await;
            let completed = known().await.phase.name() == "completed";
            assert_eq!(rig.ended(payment).await.preimage.is_some(), completed);
        }
    });
}
