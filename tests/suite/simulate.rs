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
    let told = run(&["--atms", "10000000"]);
    assert!(told.contains("10000000 machines are too many"), "{told}");
    let told = run(&["--duration", "soon"]);
    assert!(told.contains("`soon` is not a duration"), "{told}");
}
