//! Each item from good over warning to problem; what a text must tell is in the table.

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn channel() -> ChannelFacts {
    ChannelFacts {
        active: true,
        private: false,
        remote: Msat(7_000_000_000),
        reserve: Msat(100_000_000),
        max_pending: Msat(9_900_000_000),
        max_htlcs: 483,
        pending_htlcs: 0,
        pending: Msat::ZERO,
    }
}

fn good() -> Facts {
    Facts {
        address: "127.0.0.1:10009".into(),
        at: NOW,
        state: Ok(NodeState::ServerActive),
        macaroon: Ok(()),
        asked: Some(Asked {
            info: Ok(Identity {
                node: NodeInfo {
                    pubkey: "02ab".into(),
                    alias: String::new(),
                    version: "0.21.2-beta commit=v0.21.2-beta".into(),
                    network: "mainnet".into(),
                    block_height: 850_000,
                    synced_to_chain: true,
                    stores_resolutions: true,
                    hold_expiry_delta: None,
                    no_new: None,
                },
                best_header_at: UnixMs(NOW.0 - 600_000),
            }),
            rights: PERMISSIONS
                .iter()
                .map(|permission| (permission.call, Access::Granted))
                .collect(),
            excess: Access::Denied("permission denied".into()),
            clock: ClockFacts::Near(MINUTE),
            channels: Some(vec![channel()]),
            hold_expiry_delta: Some(18),
        }),
    }
}

fn expected() -> Expected {
    Expected {
        hold_expiry_delta: 18,
        cltv_expiry: 80,
        min_blocks_left: 12,
        private_route_hints: false,
        payments: vec![Msat(500_000_000), Msat(200_000_000)],
    }
}

/// The findings that are not good, when only this differs from the good node.
fn bad(change: impl FnOnce(&mut Asked, &mut Expected)) -> Vec<Finding> {
    let (mut facts, mut expected) = (good(), expected());
    change(facts.asked.as_mut().expect("asked"), &mut expected);
    let mut findings = judge(&facts, &expected);
    findings.retain(|finding| finding.level > Level::Ok);
    findings
}

/// Exactly one finding is not good: this one, which says all this.
#[track_caller]
fn only(findings: &[Finding], level: Level, item: &str, words: &[&str]) {
    let [finding] = findings else {
        panic!("one finding about {item} expected: {findings:#?}");
    };
    assert_eq!((finding.level, finding.item), (level, item), "{finding:?}");
    for words in words {
        assert!(finding.text.contains(words), "`{words}` is not in: {}", finding.text);
    }
}

fn node(asked: &mut Asked) -> &mut NodeInfo {
    &mut asked.info.as_mut().expect("known").node
}

#[test]
fn a_good_node_is_good_in_every_item() {
    let findings = judge(&good(), &expected());
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "{findings:#?}"
    );
    let items: std::collections::BTreeSet<&str> = findings.iter().map(|finding| finding.item).collect();
    let expected = [
        "clock",
        "connection",
        "delta",
        "htlc slots",
        "liquidity",
        "macaroon",
        "network",
        "resolutions",
        "right",
        "state",
        "sync",
        "time",
        "version",
    ];
    assert!(items.into_iter().eq(expected));
}

#[test]
fn what_is_not_reached_or_not_started_ends_it() {
    use NodeState::*;
    let judged = |state: Result<NodeState, &str>| {
        let facts = Facts {
            state: state.map_err(str::to_owned),
            asked: None,
            ..good()
        };
        let mut findings = judge(&facts, &expected());
        findings.retain(|finding| finding.level > Level::Ok);
        findings
    };
    only(
        &judged(Err("refused")),
        Level::Problem,
        "connection",
        &["refused", "tls_cert"],
    );
    only(&judged(Ok(Locked)), Level::Problem, "state", &["unlock"]);
    for state in [NotStarted, Unlocked] {
        only(&judged(Ok(state)), Level::Problem, "state", &["still starting"]);
    }
    only(&judged(Ok(RpcActive)), Level::Warning, "state", &["not fully started"]);
    let facts = Facts {
        macaroon: Err("the macaroon m is empty".into()),
        asked: None,
        ..good()
    };
    let findings = judge(&facts, &expected());
    only(
        &findings[2..],
        Level::Problem,
        "macaroon",
        &["m is empty", "tellerd check --bake"],
    );
}

#[test]
fn versions() {
    for (version, level, words) in [
        ("0.19.3-beta commit=x", Level::Problem, "older than 0.20"),
        ("0.22.0-beta", Level::Warning, "newer than 0.21"),
        ("1.0.0", Level::Warning, "newer than 0.21"),
        ("unknown", Level::Warning, "can not be understood"),
    ] {
        let findings = bad(|asked, _| {
            node(asked).version = version.into();
            // The other items by this line's defaults are not the point here.
            asked.hold_expiry_delta = Some(18);
        });
        only(&findings, level, "version", &[version, words]);
    }
}

#[test]
fn sync_and_clock() {
    let header = |at: u64| {
        move |asked: &mut Asked, _: &mut Expected| {
            asked.info.as_mut().expect("known").best_header_at = UnixMs(at);
        }
    };
    let late = bad(|asked, expected| {
        header(NOW.0 - 3 * 3_600_000)(asked, expected);
        node(asked).synced_to_chain = false;
    });
    only(
        &late,
        Level::Problem,
        "sync",
        &["out of sync", "850000", "3 h old", "bitcoin node"],
    );
    assert_eq!(bad(header(NOW.0 + 2 * 3_600_000)), [], "miners may be so far ahead");
    only(
        &bad(header(NOW.0 + 2 * 3_600_000 + 1)),
        Level::Problem,
        "clock",
        &["2 h in the future"],
    );
    for (clock, words) in [
        (ClockFacts::Ahead(MINUTE), "ahead"),
        (ClockFacts::Behind(MINUTE), "behind"),
        (ClockFacts::Unknown("of another format".into()), "of another format"),
    ] {
        only(&bad(|asked, _| asked.clock = clock), Level::Warning, "clock", &[words]);
    }
}

#[test]
fn each_right_by_its_need() {
    for permission in &PERMISSIONS {
        let with = |access: &Access| {
            let access = access.clone();
            bad(|asked, _| {
                for (call, known) in &mut asked.rights {
                    if *call == permission.call {
                        known.clone_from(&access);
                    }
                }
            })
        };
        let level = if permission.required {
            Level::Problem
        } else {
            Level::Warning
        };
        let words = [permission.method(), permission.purpose, "tellerd check --bake"];
        only(
            &with(&Access::Denied("permission denied".into())),
            level,
            "right",
            &words,
        );
        let words = [permission.method(), "no answer"];
        only(
            &with(&Access::Unclear("no answer".into())),
            Level::Warning,
            "right",
            &words,
        );
        assert_eq!(with(&Access::NotAsked("old".into())), []);
    }
    let needed = PERMISSIONS.iter().filter(|permission| permission.required).count();
    assert_eq!(needed, 7);
    only(
        &bad(|asked, _| asked.excess = Access::Granted),
        Level::Warning,
        "macaroon",
        &["more than tellerd needs"],
    );
}

#[test]
fn the_delta_in_force_decides_and_the_default_of_the_version_without_it() {
    let with = |version: &str, real: Option<u32>, configured: u32| {
        bad(|asked, expected| {
            node(asked).version = version.into();
            asked.hold_expiry_delta = real;
            expected.hold_expiry_delta = configured;
        })
    };
    assert_eq!(with("0.21.0-beta", Some(30), 30), []);
    assert_eq!(with("0.21.0-beta", None, 18), []);
    assert_eq!(with("0.20.2-beta", None, 12), []);
    let words = ["is 30", "is 18", "12 blocks earlier", "set lnd.hold_expiry_delta = 30"];
    only(&with("0.21.0-beta", Some(30), 18), Level::Problem, "delta", &words);
    let words = [
        "can not be read",
        "is 18",
        "unless lnd.conf sets it",
        "6 blocks earlier",
    ];
    only(&with("0.21.0-beta", None, 12), Level::Problem, "delta", &words);
    only(
        &with("0.20.2-beta", None, 18),
        Level::Warning,
        "delta",
        &["is 12", "6 blocks shorter"],
    );
    only(
        &with("0.21.0-beta", Some(16), 16),
        Level::Warning,
        "force closes",
        &["holdexpirydelta=18"],
    );
    only(
        &with("0.20.2-beta", Some(10), 10),
        Level::Warning,
        "force closes",
        &["holdexpirydelta=12"],
    );
    assert_eq!(with("0.21.0-beta", Some(17), 17), []);
}

#[test]
fn the_time_that_is_left_for_a_dispense() {
    let with = |cltv: u16, real: u32, floor: u32| {
        let mut facts = good();
        let expected = Expected {
            cltv_expiry: cltv,
            min_blocks_left: floor,
            ..expected()
        };
        facts.asked.as_mut().expect("asked").hold_expiry_delta = Some(real);
        let mut findings = judge(&facts, &expected);
        findings.retain(|finding| finding.item == "time");
        findings.pop().expect("judged")
    };
    let told = with(80, 18, 12);
    assert_eq!(told.level, Level::Ok);
    assert!(
        told.text.contains("50 blocks (about 8.3 h)") && told.text.contains("62 blocks (about 10.3 h)"),
        "{told:?}"
    );
    assert_eq!(with(31, 18, 12).level, Level::Ok);
    assert_eq!(with(30, 18, 12).level, Level::Problem);
    let by_the_real_one = with(40, 30, 12);
    assert_eq!(by_the_real_one.level, Level::Problem);
    assert!(
        by_the_real_one.text.contains("raise lnd.cltv_expiry"),
        "{by_the_real_one:?}"
    );
}

#[test]
fn liquidity_for_one_and_for_all() {
    let with =
        |change: &dyn Fn(&mut Vec<ChannelFacts>)| bad(|asked, _| change(asked.channels.as_mut().expect("known")));
    assert_eq!(
        with(&|list| list[0].remote = Msat(800_000_000)),
        [],
        "700,000 sat beyond the reserve are just enough"
    );
    let words = ["699999 sat can be received", "700000 sat", "not all of them"];
    only(
        &with(&|list| list[0].remote = Msat(799_999_000)),
        Level::Warning,
        "liquidity",
        &words,
    );
    let words = ["499999 sat can be received", "500000 sat", "inbound liquidity"];
    only(
        &with(&|list| list[0].remote = Msat(599_999_000)),
        Level::Problem,
        "liquidity",
        &words,
    );
    only(
        &with(&|list| list[0].remote = Msat(50)),
        Level::Problem,
        "liquidity",
        &["about 0 sat"],
    );
    only(
        &with(&|list| list[0].pending = Msat(9_500_000_000)),
        Level::Problem,
        "liquidity",
        &["400000 sat"],
    );
    only(
        &with(&|list| list[0].active = false),
        Level::Problem,
        "liquidity",
        &["none of 1", "active"],
    );
    only(&with(&Vec::clear), Level::Problem, "liquidity", &["none of 0"]);
    // Two channels of 400,000 bring 500,000 in parts.
    let halves = |list: &mut Vec<ChannelFacts>| {
        list[0].remote = Msat(500_000_000);
        list.push(list[0].clone());
    };
    assert_eq!(with(&halves), []);
    only(
        &bad(|asked, _| asked.channels = None),
        Level::Warning,
        "liquidity",
        &["can not be read"],
    );
}

#[test]
fn slots_and_private_channels() {
    let with = |pending: u32| bad(|asked, _| asked.channels.as_mut().expect("known")[0].pending_htlcs = pending);
    assert_eq!(with(481), []);
    only(&with(482), Level::Warning, "htlc slots", &["1 more", "2 machines"]);
    let full: Vec<(Level, &str)> = with(483).iter().map(|finding| (finding.level, finding.item)).collect();
    assert_eq!(full, [(Level::Problem, "liquidity"), (Level::Problem, "htlc slots")]);
    let private = |asked: &mut Asked| asked.channels.as_mut().expect("known")[0].private = true;
    only(
        &bad(|asked, _| private(asked)),
        Level::Warning,
        "route hints",
        &["private_route_hints = true"],
    );
    let hinted = bad(|asked, expected| {
        private(asked);
        expected.private_route_hints = true;
    });
    assert_eq!(hinted, []);
}

#[test]
fn without_resolutions_money_can_not_be_followed() {
    let findings = bad(|asked, _| node(asked).stores_resolutions = false);
    only(
        &findings,
        Level::Warning,
        "resolutions",
        &["store-final-htlc-resolutions=true"],
    );
}

#[test]
fn times_in_words() {
    for (seconds, words) in [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (172_800, "2 days"),
    ] {
        assert_eq!(node::told(Duration::from_secs(seconds)), words);
    }
}
