//! One binary for all integration tests: linking is what takes time on two cores.

mod architecture;
mod check;
mod clients;
#[path = "../conformance/mod.rs"]
mod conformance;
mod crash;
mod crash_audit;
mod daemon;
mod damage;
mod dashboards;
mod fleet;
mod fleet_apart;
mod fleet_journal;
mod fleet_lnd;
mod fleet_panics;
mod fleet_rig;
mod funds;
mod hardware;
mod hardware_transcripts;
mod journal;
mod journal_writer;
mod lnd;
mod lnd_fake;
mod nostr_flood;
mod nostr_hostile;
mod nostr_operator;
mod nostr_rig;
mod nostr_service;
mod nostr_site;
mod real_disk;
mod rig;
mod sim_lnd;
mod sim_lnd_conformance;
mod sim_lnd_faults;
mod sim_lnd_finality;
mod sim_lnd_kill;
mod simulate;
mod simulation;
#[allow(dead_code, reason = "tests/real_lnd needs more of it")]
mod site;
mod small_world;
mod via;
