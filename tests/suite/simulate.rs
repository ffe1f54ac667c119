//! `tellerd simulate` as its user starts it: a small calm fleet, killed once or twice, with its report.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

const SCENARIO: &str = "about = \"a test\"\n[customers]\npause = \"200ms\"\npays_at_once = 9\ncancels = 1\n\
                        [daemon]\nkill_every = \"1500ms\"\n[lnd]\nblock_interval = \"2s\"\n";

#[test]
fn a_small_fleet_is_simulated_killed_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let (scenario, report) = (dir.path().join("s.toml"), dir.path().join("r.json"));
    std::fs::write(&scenario, SCENARIO).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tellerd"))
        .args([
            "simulate",
            "--atms",
            "2",
            "--duration",
            "6s",
            "--seed",
            "5",
            "--scenario",
        ])
        .arg(&scenario)
        .arg("--report")
        .arg(&report)
        .arg("--keep")
        .arg(dir.path().join("work"))
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let told = format!("{out}{err}");
    assert!(output.status.success(), "{told}");
    assert!(told.contains("No violation"), "{told}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    for key in [
        "seed",
        "atms",
        "duration_s",
        "notes_delivered",
        "value_delivered_minor",
        "sats_settled",
        "kills",
        "faults_injected",
        "latency_ms",
    ] {
        assert!(!report[key].is_null(), "{key} in {report}");
    }
    for key in [
        "started",
        "completed",
        "canceled",
        "claim_owed",
        "needs_operator",
        "open",
    ] {
        assert!(report["cashouts"][key].is_u64(), "{key} in {report}");
    }
    assert_eq!(report["violations"], Value::Array(Vec::new()), "{told}");
    // 10 satoshi a cent, no fee, nobody overpays.
    let minor = report["value_delivered_minor"].as_u64().unwrap();
    assert_eq!(report["sats_settled"].as_u64().unwrap(), minor * 10, "{told}");
}

/// Two sites, of which one is invited, over relays that lose and repeat events; a site and the server are killed.
#[test]
fn a_few_sites_are_simulated_over_bad_relays_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let (scenario, report) = (dir.path().join("s.toml"), dir.path().join("r.json"));
    let relay = "[server]\nkill_every = \"4s\"\n[relay]\ndrop = 3\nduplicate = 10\ndelay = 5\ndelay_max = \"1s\"\n\
                 lose_ok = 10\nclose_every = \"6s\"\ndisconnect_every = \"6s\"\n";
    let text = SCENARIO.replace("1500ms", "3s") + relay;
    std::fs::write(&scenario, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tellerd"))
        .args("simulate --payments nostr --atms 3 --sites 2 --duration 8s --seed 5 --scenario".split(' '))
        .arg(&scenario)
        .arg("--report")
        .arg(&report)
        .output()
        .unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["violations"], Value::Array(Vec::new()), "{told}");
    assert_eq!((&report["payments"], &report["sites"]), (&"nostr".into(), &2.into()));
    assert!(report["kills"].is_u64() && report["server_kills"].is_u64(), "{told}");
    let relays = report["relays"].as_array().unwrap();
    assert_eq!(relays.len(), 2, "{told}");
    for relay in relays {
        assert!(relay["published"].as_u64().unwrap() > 0, "{told}");
    }
    assert!(report["cashouts"]["completed"].as_u64().unwrap() > 0, "{told}");
    let minor = report["value_delivered_minor"].as_u64().unwrap();
    assert_eq!(report["sats_settled"].as_u64().unwrap(), minor * 10, "{told}");
}

/// More machines than anybody has terminals for need no terminal: the same daemon, drivers and devices, lines in memory.
#[test]
fn machines_in_memory_are_simulated_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let (scenario, report) = (dir.path().join("s.toml"), dir.path().join("r.json"));
    let text = "about = \"a test\"\n[customers]\npause = \"10s\"\narrivals = \"poisson\"\nday = \"24s\"\n\
                hours = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]\n\
                pays_at_once = 9\ncancels = 1\n[faults]\nreject = 10\n";
    std::fs::write(&scenario, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tellerd"))
        .args("simulate --transport memory --atms 50 --duration 8s --seed 5 --scenario".split(' '))
        .arg(&scenario)
        .arg("--report")
        .arg(&report)
        .arg("--keep")
        .arg(dir.path().join("work"))
        .output()
        .unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["violations"], Value::Array(Vec::new()), "{told}");
    assert_eq!((&report["transport"], &report["atms"]), (&"memory".into(), &50.into()));
    assert!(report["cashouts"]["completed"].as_u64().unwrap() > 0, "{told}");
    // Who looks into the kept directory finds what happened in each machine, and what the daemon said.
    for file in ["machines/atm-050.jsonl", "daemon.log", "fleet.toml"] {
        assert!(
            std::fs::metadata(dir.path().join("work").join(file)).unwrap().len() > 0,
            "{file}"
        );
    }
}

#[test]
fn mistakes_of_the_user_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("s.toml");
    std::fs::write(
        &scenario,
        "about = \"x\"\n[customers]\npays_at_once = 1\n[faults]\njams = 3\n",
    )
    .unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tellerd"))
            .arg("simulate")
            .args(args)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let told = run(&["--scenario", scenario.to_str().unwrap()]);
    assert!(told.contains("s.toml:5: faults.jams: unknown key"), "{told}");
    std::fs::write(&scenario, format!("{SCENARIO}[server]\n")).unwrap();
    let told = run(&["--scenario", scenario.to_str().unwrap()]);
    assert!(
        told.contains("[relay] or [server]") && told.contains("--payments nostr only"),
        "{told}"
    );
    std::fs::write(&scenario, SCENARIO).unwrap();
    let told = run(&["--transport", "memory", "--scenario", scenario.to_str().unwrap()]);
    assert!(
        told.contains("can not be killed; the scenario has daemon.kill_every"),
        "{told}"
    );
    let told = run(&["--transport", "memory", "--payments", "nostr"]);
    assert!(
        told.contains("--transport memory: the daemon is in this process"),
        "{told}"
    );
    let told = run(&["--kills", "3", "--payments", "nostr"]);
    assert!(told.contains("--kills: one daemon with an LND"), "{told}");
    let told = run(&["--sites", "3"]);
    assert!(
        told.contains("--sites: there are sites with --payments nostr only"),
        "{told}"
    );
    let told = run(&["--atms", "10000000"]);
    assert!(told.contains("10000000 machines are too many"), "{told}");
    let told = run(&["--duration", "soon"]);
    assert!(told.contains("`soon` is not a duration"), "{told}");
}
