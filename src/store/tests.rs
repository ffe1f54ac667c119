//! Folding, following the journal and rebuilding, against the pure fold.

use super::*;
use crate::cashout::Event;
use crate::cashout::tests::whole_history;
use crate::money::Minor;
use crate::record::{AtmEvent, Body, VERSION};
use crate::time::UnixMs;

fn records() -> Vec<journal::Record> {
    let id = CashOutId::new(UnixMs(1_000), 1);
    let open = CashOutId::new(UnixMs(2_000), 1);
    let history = whole_history();
    let first = history[0].clone();
    let loaded = |position, denomination| AtmEvent::CassetteLoaded {
        position,
        denomination: Minor(denomination),
        notes: 10,
        by: "ada".into(),
    };
    let atm = |event| Body::Atm {
        id: "lobby".parse().unwrap(),
        event,
    };
    let cashout = |id, event: Event| Body::CashOut { id, event };
    let mut bodies = vec![
        atm(loaded(1, 2_000)),
        atm(loaded(2, 1_000)),
        Body::Node { pubkey: "02ab".into() },
    ];
    bodies.extend(history.into_iter().map(|event| cashout(id, event)));
    bodies.push(cashout(open, first));
    let numbered = bodies.into_iter().zip(1_u64..);
    let payload = |body| Record { at: UnixMs(1), body }.encode().unwrap();
    numbered
        .map(|(body, seq)| journal::Record {
            seq,
            hash: journal::ChainHash([7; 32]),
            version: VERSION,
            payload: payload(body),
        })
        .collect()
}

#[test]
fn a_store_read_back_is_the_fold_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let expected = {
        let (mut store, aside) = Store::open(dir.path()).unwrap();
        assert!(aside.is_none() && store.position().is_none());
        for chunk in records().chunks(2) {
            store.follow(chunk).unwrap();
        }
        store.folded().clone()
    };
    let (store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(store.folded(), &expected);
    assert_eq!(store.position().unwrap().seq, records().len() as u64);
    assert_eq!(expected.cashouts.len(), 1, "one is still open");
    assert_eq!((expected.totals.completed, expected.totals.drift), (1, 0));
    let book = &expected.atms[&"lobby".parse().unwrap()];
    assert_eq!(
        book.notes.cassettes.iter().map(|c| c.remaining).collect::<Vec<_>>(),
        [8, 8]
    );
}

#[test]
fn a_machine_finds_its_open_cash_outs_without_those_of_others() {
    let mut folded = Folded::default();
    let lobby: AtmId = "lobby".parse().unwrap();
    let mut most = 0;
    for entry in records() {
        let record = Record::decode(entry.version, &entry.payload).unwrap();
        folded.add(&record).unwrap();
        let all = folded.cashouts.values().filter(|cashout| cashout.quote.atm == lobby);
        assert!(folded.open_at(&lobby).eq(all), "after record {}", entry.seq);
        assert_eq!(folded.open_at(&"lob".parse().unwrap()).count(), 0);
        most = most.max(folded.open_at(&lobby).count());
    }
    assert_eq!(
        (most, folded.open_at(&lobby).count()),
        (1, 1),
        "one ended, then one began"
    );
}

#[test]
fn cash_outs_are_listed_newest_first_by_page_and_by_atm() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.follow(&records()).unwrap();
    let view = store.view();
    let all = view.cashouts(None, None, 10).unwrap();
    assert_eq!(
        all.iter().map(|c| c.phase.name()).collect::<Vec<_>>(),
        ["quoted", "completed"]
    );
    let older = view
        .cashouts(Some(&"lobby".parse().unwrap()), Some(all[0].id), 10)
        .unwrap();
    assert_eq!(older, all[1..]);
    assert!(
        view.cashouts(Some(&"lob".parse().unwrap()), None, 10)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_damaged_store_is_set_aside_and_due_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.follow(&records()).unwrap();
    drop(store);
    let file = dir.path().join("state/conf");
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0xA5; usize::try_from(length).unwrap()]).unwrap();
    let (store, aside) = Store::open(dir.path()).unwrap();
    assert!(store.position().is_none());
    let kept = std::fs::read(aside.expect("set aside").join("conf")).unwrap();
    assert!(kept.iter().all(|b| *b == 0xA5), "nothing is overwritten");
}

/// So many open cash-outs that sled needs several segments.
fn many() -> Vec<journal::Record> {
    let quoted = records().pop().unwrap();
    let template = Record::decode(quoted.version, &quoted.payload).unwrap();
    let Body::CashOut { event, .. } = template.body else {
        panic!("{template:?}")
    };
    let numbered = (1..=1_500_u64).map(|seq| {
        let id = CashOutId::new(UnixMs(seq), 1);
        let body = Body::CashOut {
            id,
            event: event.clone(),
        };
        let payload = Record { at: UnixMs(1), body }.encode().unwrap();
        journal::Record {
            seq,
            payload,
            ..quoted.clone()
        }
    });
    numbered.collect()
}

/// With a snapshot that knows of segments that are gone sled panics; without one it is back at an earlier record. Both
/// are found again from the journal.
#[test]
fn a_store_that_was_cut_off_is_set_aside_or_stands_for_less() {
    for lives in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        for record in &many() {
            store.follow(std::slice::from_ref(record)).unwrap();
        }
        drop(store);
        for _ in 1..lives {
            drop(Store::open(dir.path()).unwrap());
        }
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("state/db"))
            .unwrap();
        let length = file.metadata().unwrap().len();
        assert!(length > 1 << 20, "several segments: {length}");
        file.set_len(length / 3).unwrap();
        let (store, aside) = Store::open(dir.path()).unwrap();
        // In the first life too, when sled's own thread had come to write a snapshot.
        assert!(aside.is_some() || lives == 1);
        let stands = store.position().map_or(0, |position| position.seq);
        let mut fold = Folded::default();
        for record in many().iter().take(usize::try_from(stands).unwrap()) {
            let record = Record::decode(record.version, &record.payload).unwrap();
            fold.add(&record).unwrap();
        }
        assert!(stands < 900, "{stands}");
        assert_eq!(store.folded().difference(&fold), None, "the state of record {stands}");
    }
}

#[test]
fn a_record_that_does_not_follow_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let orphan = records().remove(4);
    let error = store.follow(&[orphan]).unwrap_err().to_string();
    assert!(error.contains("record 5") && error.contains("is not open"), "{error}");
}

/// Writes `records()` through the journal alone.
pub(crate) fn journal_in(dir: &std::path::Path) {
    let opened = open(dir).unwrap();
    let (appender, writer) = opened
        .journal
        .start(journal::Options::default(), Box::new(|_| {}))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let payloads = records().into_iter().map(|r| (r.version, r.payload)).collect();
    runtime.block_on(appender.append_all(payloads)).unwrap();
    drop(appender);
    assert!(writer.join());
}

#[test]
fn a_store_that_is_behind_catches_up_and_then_starts_without_replay() {
    let dir = tempfile::tempdir().unwrap();
    journal_in(dir.path());
    let all = records().len() as u64;
    let expected = {
        let opened = open(dir.path()).unwrap();
        assert_eq!(opened.replayed, all);
        opened.store.folded().clone()
    };
    let opened = open(dir.path()).unwrap();
    assert_eq!((opened.replayed, opened.store.folded()), (0, &expected));
    drop(opened);
    let rebuilt = rebuild(dir.path()).unwrap();
    assert_eq!((rebuilt.replayed, rebuilt.store.folded()), (all, &expected));
    assert!(rebuilt.set_aside.is_some());
}

#[test]
fn a_journal_that_ends_before_its_store_is_refused_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    journal_in(dir.path());
    drop(open(dir.path()).unwrap());
    let segment = std::fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
    // Also by a rebuild: the store is the only witness of what is gone.
    for way in [open, rebuild] {
        let error = way(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("ends at record") && error.contains("put the journal's"),
            "{error}"
        );
    }
    assert!(!dir.path().join("state.damaged-1").exists());
}

/// Makes the store in `dir` one of another release.
fn of_another_release(dir: &std::path::Path) {
    let db = sled::open(dir.join(FOLDER)).unwrap();
    let meta = String::from_utf8(db.get("m").unwrap().unwrap().to_vec()).unwrap();
    let other = meta.replacen(&format!("\"schema\":{SCHEMA}"), "\"schema\":2", 1);
    assert_ne!(meta, other);
    db.insert("m", other.as_bytes()).unwrap();
    db.flush().unwrap();
}

#[test]
fn a_store_of_another_release_is_folded_anew_but_only_when_the_journal_has_all_that_it_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    journal_in(dir.path());
    let expected = open(dir.path()).unwrap().store.folded().clone();
    of_another_release(dir.path());
    let error = verify(dir.path()).unwrap_err().to_string();
    assert!(error.contains("of another release"), "{error}");
    let opened = open(dir.path()).unwrap();
    assert_eq!(
        (opened.replayed, opened.store.folded()),
        (records().len() as u64, &expected)
    );
    drop(opened);
    assert_eq!(verify(dir.path()).unwrap().replayed, 0);
    of_another_release(dir.path());
    let mut segments = std::fs::read_dir(dir.path().join(journal::FOLDER)).unwrap();
    let segment = segments.next().unwrap().unwrap().path();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
    for way in [open, rebuild, open] {
        let error = way(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("ends at record"), "{error}");
    }
}

/// The names and bytes of all files, but the lock.
fn files(dir: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.ends_with("lock") => {}
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_store_that_is_not_there_is_not_called_the_same_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    journal_in(dir.path());
    let state = dir.path().join(FOLDER);
    let unmarked = {
        std::fs::remove_dir_all(&state).unwrap();
        let db = sled::open(&state).unwrap();
        db.insert("a/lobby", "kept").unwrap();
        drop(db);
        verify(dir.path()).unwrap()
    };
    let all = records().len() as u64;
    assert_eq!((unmarked.stored, unmarked.records), (false, all));
    let kept = sled::open(&state).unwrap().get("a/lobby").unwrap();
    assert_eq!(kept.as_deref(), Some(b"kept".as_slice()), "nothing is emptied");
    for there in [true, false] {
        std::fs::remove_dir_all(&state).unwrap();
        if there {
            std::fs::create_dir(&state).unwrap();
        }
        let before = files(dir.path());
        assert!(!verify(dir.path()).unwrap().stored);
        assert_eq!((files(dir.path()), state.exists()), (before, there));
        std::fs::create_dir_all(&state).unwrap();
    }
    drop(open(dir.path()).unwrap());
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.stored, verified.replayed), (true, 0));
}

#[test]
fn an_index_that_lacks_a_cash_out_or_has_one_too_many_differs() {
    let dir = tempfile::tempdir().unwrap();
    journal_in(dir.path());
    drop(open(dir.path()).unwrap());
    for id in [1_000, 2_000].map(|at| CashOutId::new(UnixMs(at), 1)) {
        let change = |key: &str, value: Option<&str>| {
            let db = sled::open(dir.path().join(FOLDER)).unwrap();
            match value {
                Some(value) => drop(db.insert(key, value).unwrap()),
                None => assert!(db.remove(key).unwrap().is_some()),
            }
        };
        let (right, wrong) = (format!("ca/lobby/{id}"), format!("ca/lob/{id}"));
        change(&right, None);
        let error = verify(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("the index lacks lobby/{id}")), "{error}");
        change(&right, Some(""));
        change(&wrong, Some(""));
        let error = verify(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("the index has lob/{id}")), "{error}");
        change(&wrong, None);
        verify(dir.path()).unwrap();
    }
}

#[test]
fn a_folder_without_a_journal_is_not_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("typo");
    let error = rebuild(&wrong).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("typo holds no journal"), "{error}");
    assert!(!wrong.exists(), "nothing is made");
}

#[test]
fn a_second_opening_is_refused_before_the_store_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("another tellerd") && error.contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn what_is_folded_is_seen_at_once_and_in_sled_when_written() {
    let dir = tempfile::tempdir().unwrap();
    let ended = CashOutId::new(UnixMs(1_000), 1);
    {
        let (mut store, _) = Store::open(dir.path()).unwrap();
        store.fold(&records()).unwrap();
        assert!(store.waiting() > 0);
        assert!(store.view().cashout(ended).unwrap().unwrap().is_final());
    }
    let (mut store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(
        store.position(),
        None,
        "a crash before it is written loses nothing but the work"
    );
    store.fold(&records()).unwrap();
    assert_eq!(
        store.view().cashouts(None, None, 10).unwrap().len(),
        2,
        "a list has all"
    );
    assert_eq!(store.waiting(), 0);
    drop(store);
    let (store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(store.position().unwrap().seq, records().len() as u64);
}

/// A client of the service settles one invoice of 61 sat on day 0; the money comes a day later.
#[test]
fn a_settled_invoice_weighs_on_no_limit_while_its_money_is_on_its_way() {
    use crate::ids::{NostrKey, Preimage};
    use crate::invoice::{InvoiceEvent as E, InvoiceSpec};
    use crate::money::{Funds, Msat};
    let (client, preimage) = (NostrKey([3; 32]), Preimage::from_bytes([9; 32]));
    let hash = preimage.hash();
    let spec = InvoiceSpec {
        hash,
        owner: Owner::Remote {
            client,
            commit_ms: 9,
            force_blocks_left: 6,
        },
        amount: Msat(61_000),
        memo: String::new(),
        pay_by: UnixMs(5_000),
        hold_ms: 5_000,
        cltv_expiry: 80,
        hold_expiry_delta: 18,
        min_blocks_left: 12,
        private_route_hints: false,
    };
    let (at, paid) = (UnixMs(1_000), Msat(61_000));
    let lowest_expiry_height = Some(180);
    let mut folded = Folded::default();
    let mut add = |event, at| {
        let body = Body::Invoice { hash, event };
        folded.add(&Record { at, body }).unwrap();
        let left = folded.unfinished_clients().contains(&client);
        (folded.usage[&client], folded.invoices.len(), left)
    };
    add(E::Requested { spec }, at);
    let payment_request = "lnbc1".to_owned();
    add(E::Opened { payment_request }, at);
    let accepted = E::Accepted {
        paid,
        lowest_expiry_height,
        at,
    };
    assert_eq!(add(accepted, at).0.held_sats, 61);
    add(E::SettleOrdered { preimage, at: Some(at) }, at);
    let settled = E::SettledAtLnd {
        paid,
        at: Some(at),
        follow: true,
    };
    let (usage, open, may_look) = add(settled, at);
    assert_eq!(
        (usage.open, usage.held_sats, usage.pending_sats, usage.settled_sats),
        (0, 0, 0, 61)
    );
    assert_eq!(
        (open, may_look),
        (1, true),
        "followed, and to be looked at by its client"
    );
    let tomorrow = UnixMs(86_400_000 + 1_000);
    let funds = Funds::Final;
    let (usage, open, may_look) = add(E::FundsSeen { funds, at: tomorrow }, tomorrow);
    assert_eq!(
        (usage.day_sats(at), usage.day_sats(tomorrow)),
        (61, 0),
        "settled once, on its day"
    );
    assert_eq!((open, may_look), (0, false));
}
