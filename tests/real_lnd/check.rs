//! `tellerd check` against a real LND: the documented macaroon is enough and allows nothing else; each trouble is a line.

use std::path::{Path, PathBuf};

use tellerd::lnd::permissions::{PERMISSIONS, bake_command};
use tellerd::lnd::version;
use tellerd::proto::lnrpc::WalletState;
use tokio::process::Command;

use crate::harness::{Group, test};
use crate::rig::{Chain, Net, Node, binaries, until};

pub const GROUP: Group = Group {
    name: "check",
    merchant: &["--store-final-htlc-resolutions"],
    tests: &[
        test("the_documented_macaroon_is_enough", |net| Box::pin(enough(net))),
        test("it_allows_nothing_else", |net| Box::pin(nothing_else(net))),
        test("each_of_its_rights_is_needed", |net| Box::pin(each_is_needed(net))),
        test("lnds_own_macaroons_are_too_weak_or_too_strong", |net| {
            Box::pin(own_macaroons(net))
        }),
        test("a_macaroon_that_expired_or_was_revoked", |net| {
            Box::pin(dead_macaroons(net))
        }),
        test("a_delta_that_lnd_does_not_have", |net| Box::pin(another_delta(net))),
        test("a_locked_wallet", |net| Box::pin(locked(net))),
        test("a_node_that_is_out_of_sync", |net| Box::pin(out_of_sync(net))),
    ],
};

/// What the command said.
struct Said {
    code: Option<i32>,
    lines: Vec<String>,
}

impl Said {
    fn of(&self, level: &str) -> Vec<&str> {
        let lines = self.lines.iter().map(String::as_str);
        lines.filter(|line| line.starts_with(&format!("{level} "))).collect()
    }

    /// There is exactly one problem, which says all this.
    #[track_caller]
    fn problem(&self, words: &[&str]) {
        let problems = self.of("problem");
        let [line] = problems.as_slice() else {
            panic!("one problem expected: {:#?}", self.lines);
        };
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?} are not all in: {line}"
        );
        assert_eq!(self.code, Some(1));
    }

    /// Everything is good.
    #[track_caller]
    fn good(&self) {
        assert_eq!(
            (self.of("problem"), self.of("warning")),
            (vec![], vec![]),
            "{:#?}",
            self.lines
        );
        assert_eq!(self.code, Some(0));
    }
}

/// What `node` has by default.
async fn delta(node: &Node) -> u32 {
    let told = node.info().await.expect("lnd answers").version;
    version::default_hold_expiry_delta(version::parse(&told).expect("a version"))
}

async fn check(folder: &Path, node: &Node, macaroon: &Path, delta: u32) -> Said {
    let (address, cert) = (node.address(), node.dir().join("tls.cert"));
    let config = format!(
        "data_dir = 'data'\n[lnd]\naddress = '{address}'\ntls_cert = {cert:?}\nmacaroon = {macaroon:?}\n\
         hold_expiry_delta = {delta}\n[rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
         [[atm]]\nid = 'left'\nmodel = 'puloon-lcdm4000'\npath = 'left'\nmin_amount = '20.00'\nmax_amount = '500.00'\n\
         [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = 100\n"
    );
    let file = folder.join("check.toml");
    std::fs::write(&file, config).expect("configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
    command
        .arg("check")
        .arg("--config")
        .arg(file)
        .env_remove("RUST_LOG")
        .kill_on_drop(true);
    let output = command.output().await.expect("tellerd check");
    let text = String::from_utf8(output.stdout).expect("text");
    Said {
        code: output.status.code(),
        lines: text.lines().map(str::to_owned).collect(),
    }
}

/// Carries out the documented command, all but where it writes to and with which key.
async fn bake(node: &Node, file: &Path, key: u64, leave_out: Option<&str>) -> PathBuf {
    let command = bake_command().replace('\\', "");
    let uris = command
        .split_whitespace()
        .filter(|word| word.starts_with("uri:") && Some(*word) != leave_out);
    let (key, save_to) = (key.to_string(), file.display().to_string());
    let mut words = vec!["bakemacaroon", "--save_to", &save_to, "--root_key_id", &key];
    words.extend(uris);
    node.cli(&words).await.expect("a macaroon");
    file.to_owned()
}

async fn enough(net: &mut Net) {
    let folder = net.folder("check");
    let node = &net.merchant;
    let macaroon = bake(node, &folder.join("tellerd.macaroon"), 7, None).await;
    let said = check(&folder, node, &macaroon, delta(node).await).await;
    for line in &said.lines {
        println!("  {line}");
    }
    said.good();
    assert!(
        said.lines
            .iter()
            .any(|line| line.contains("clock: LND's clock is within 60 s")),
        "{:#?}",
        said.lines
    );
}

async fn nothing_else(net: &mut Net) {
    let folder = net.folder("check");
    let macaroon = bake(&net.merchant, &folder.join("tellerd.macaroon"), 7, None).await;
    let given = format!("--macaroonpath={}", macaroon.display());
    for others in [
        &["newaddress", "p2wkh"][..],
        &["walletbalance"],
        &["channelbalance"],
        &["listinvoices"],
        &["addinvoice", "1000"],
        &["listpayments"],
        &["listpeers"],
        &["bakemacaroon", "info:read"],
        &["stop"],
    ] {
        let words: Vec<&str> = [given.as_str()].into_iter().chain(others.iter().copied()).collect();
        let why = net.merchant.cli(&words).await.expect_err(others[0]);
        assert!(why.contains("permission denied"), "{}: {why}", others[0]);
    }
}

async fn each_is_needed(net: &mut Net) {
    let folder = net.folder("check");
    let node = &net.merchant;
    let delta = delta(node).await;
    for permission in &PERMISSIONS {
        let file = folder.join(format!("without-{}.macaroon", permission.method()));
        let macaroon = bake(node, &file, 8, Some(permission.uri)).await;
        let said = check(&folder, node, &macaroon, delta).await;
        let words = format!("right: {} is not allowed (permission denied)", permission.method());
        let refused: Vec<&String> = said
            .lines
            .iter()
            .filter(|line| line.contains("is not allowed"))
            .collect();
        if permission.method() == "GetDebugInfo" && delta == 12 {
            assert_eq!(refused, Vec::<&String>::new(), "it is not asked for before 0.21");
            continue;
        }
        assert!(
            matches!(refused[..], [line] if line.contains(&words)),
            "{words}: {:#?}",
            said.lines
        );
        assert_eq!(said.code, Some(i32::from(permission.required)), "{:#?}", said.lines);
    }
}

async fn own_macaroons(net: &mut Net) {
    let folder = net.folder("check");
    let node = &net.merchant;
    let delta = delta(node).await;
    let weak = check(&folder, node, &node.macaroons().join("readonly.macaroon"), delta).await;
    let problems = weak.of("problem");
    assert_eq!(problems.len(), 3, "{problems:#?}");
    for (line, call) in problems
        .iter()
        .zip(["AddHoldInvoice", "SettleInvoice", "CancelInvoice"])
    {
        assert!(
            line.contains(&format!("{call} is not allowed (permission denied)")),
            "{line}"
        );
    }
    let strong = check(&folder, node, &node.macaroons().join("admin.macaroon"), delta).await;
    assert!(
        matches!(strong.of("warning")[..], [line] if line.contains("more than tellerd needs")),
        "{:#?}",
        strong.lines
    );
    assert_eq!(strong.code, Some(0));
}

async fn dead_macaroons(net: &mut Net) {
    let folder = net.folder("check");
    let node = &net.merchant;
    let delta = delta(node).await;
    let macaroon = bake(node, &folder.join("revoked.macaroon"), 70, None).await;
    check(&folder, node, &macaroon, delta).await.good();
    let short = folder.join("short.macaroon");
    let (from, to) = (macaroon.display().to_string(), short.display().to_string());
    node.cli(&["constrainmacaroon", "--timeout", "1", &from, &to])
        .await
        .expect("narrowed");
    until("the macaroon is over", async || {
        let said = check(&folder, node, &short, delta).await;
        matches!(said.of("problem")[..], [line] if line.contains("macaroon has expired"))
    })
    .await;
    node.cli(&["deletemacaroonid", "70"]).await.expect("revoked");
    check(&folder, node, &macaroon, delta)
        .await
        .problem(&["macaroon", "root key with id 70 doesn't exist", "--bake"]);
}

async fn another_delta(net: &mut Net) {
    let folder = net.folder("check");
    let macaroon = bake(&net.merchant, &folder.join("tellerd.macaroon"), 7, None).await;
    let usual = delta(&net.merchant).await;
    let said = check(&folder, &net.merchant, &macaroon, usual - 6).await;
    said.problem(&[
        "delta",
        &format!("is {usual}"),
        "6 blocks earlier",
        &format!("hold_expiry_delta = {usual}"),
    ]);
    if usual == 12 {
        return;
    }
    let before = net.merchant.options.clone();
    net.merchant.options = before
        .iter()
        .filter(|option| !option.contains("store-final"))
        .cloned()
        .collect();
    net.merchant.options.push("--invoices.holdexpirydelta=16".into());
    restart(net).await;
    let said = check(&folder, &net.merchant, &macaroon, 16).await;
    let warnings = said.of("warning");
    assert!(
        matches!(warnings[..], [closes, stored] if closes.contains("force closes") && stored.contains("store-final")),
        "{:#?}",
        said.lines
    );
    net.merchant.options = before;
    restart(net).await;
    check(&folder, &net.merchant, &macaroon, usual).await.good();
}

/// With what are its options now.
async fn restart(net: &mut Net) {
    net.merchant.stop().await;
    net.merchant.start();
    net.synced().await;
    net.reconnect().await;
    net.lane_is_up().await;
}

async fn locked(net: &mut Net) {
    let folder = net.folder("check");
    let macaroon = bake(&net.merchant, &folder.join("tellerd.macaroon"), 7, None).await;
    let delta = delta(&net.merchant).await;
    net.merchant.stop().await;
    check(&folder, &net.merchant, &macaroon, delta)
        .await
        .problem(&["connection", "refused"]);
    net.merchant.start_locked();
    net.merchant.reaches(WalletState::Locked).await;
    check(&folder, &net.merchant, &macaroon, delta)
        .await
        .problem(&["state", "locked", "unlock"]);
    net.merchant.unlock().await;
    net.synced().await;
    net.reconnect().await;
    net.lane_is_up().await;
    check(&folder, &net.merchant, &macaroon, delta).await.good();
}

/// A node whose chain has only its first block, which is of 2014.
async fn out_of_sync(net: &mut Net) {
    let (folder, bin) = (net.folder("check"), binaries().expect("programs"));
    let mut chain = Chain::new(&bin, &net.folder("late-chain"));
    let mut node = Node::new("late", &bin, &net.folder("late"), &chain, &[]);
    chain.start(None).await;
    node.start_locked();
    node.init_wallet().await;
    node.reaches(WalletState::RpcActive).await;
    let macaroon = bake(&node, &folder.join("late.macaroon"), 7, None).await;
    let said = check(&folder, &node, &macaroon, delta(&node).await).await;
    for line in &said.lines {
        println!("  {line}");
    }
    let problems = said.of("problem");
    assert!(
        matches!(problems[..], [sync, none] if sync.contains("sync: out of sync") && none.contains("none of 0 channels")),
        "{:#?}",
        said.lines
    );
    assert!(
        said.of("warning")
            .iter()
            .any(|line| line.contains("has not fully started")),
        "{:#?}",
        said.lines
    );
    node.stop().await;
    chain.stop().await;
}
