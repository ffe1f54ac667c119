//! `tellerd journal` and `tellerd store`: reading the truth, and folding it again.
//!
//! Reading needs no lock and works beside a running daemon. Preimages are left out of everything printed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use crate::ids::CashOutId;
use crate::journal::Reader;
use crate::record::{Body, Record};
use crate::store;

#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// Check every record's number, hash and meaning, from the first on.
    Verify {
        /// The daemon's data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// The records of one cash-out, of its invoice and of what operators ordered about it over Nostr, one a line.
    Show {
        /// The daemon's data directory.
        #[arg(long)]
        data: PathBuf,
        /// The cash-out's id.
        cashout: CashOutId,
    },
    /// All records.
    Export {
        /// The daemon's data directory.
        #[arg(long)]
        data: PathBuf,
        /// One JSON object a line, or columns.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    Jsonl,
    Csv,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Set the state store aside and fold the journal into a new one. The daemon must not be running.
    Rebuild {
        /// The daemon's data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// Compare the state that a start would find with a fold of the whole journal. The daemon must not be running.
    Verify {
        /// The daemon's data directory.
        #[arg(long)]
        data: PathBuf,
    },
}

pub(super) fn journal(command: JournalCommand) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = match command {
        JournalCommand::Verify { data } => verify(&data, &mut out),
        JournalCommand::Show { data, cashout } => show(&data, cashout, &mut out),
        JournalCommand::Export { data, format } => export(&data, format, &mut out),
    };
    // What was intact is printed even when the rest is not.
    out.flush().or_else(closed_pipe)?;
    done.map(|()| ExitCode::SUCCESS)
}

pub(super) fn store(command: StoreCommand) -> anyhow::Result<ExitCode> {
    match command {
        StoreCommand::Rebuild { data } => rebuild(&data),
        StoreCommand::Verify { data } => {
            let found = store::verify(&data)?;
            if !found.stored {
                println!(
                    "{} records, and no state store: it will be folded again at the next start; nothing was compared",
                    found.records
                );
                return Ok(ExitCode::SUCCESS);
            }
            println!(
                "{} records, {} of them not in the state store yet; it and they say the same as a fold of all, with {} \
                 finished cash-outs and invoices",
                found.records, found.replayed, found.finished
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn rebuild(data: &Path) -> anyhow::Result<ExitCode> {
    let opened = store::rebuild(data)?;
    let state = opened.store.folded();
    println!(
        "{} records folded: {} cash-outs and {} invoices open, {} completed, {} canceled",
        opened.replayed,
        state.cashouts.len(),
        state.invoices.len(),
        state.totals.completed,
        state.totals.canceled
    );
    if let Some(aside) = opened.set_aside {
        println!("the former store is kept as {}", aside.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(data: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let mut reader = Reader::open(data)?;
    let mut folded = store::Folded::default();
    let mut records = 0_u64;
    for entry in reader.by_ref() {
        let entry = entry?;
        let meaning = || format!("record {}", entry.seq);
        let record = Record::decode(entry.version, &entry.payload).with_context(meaning)?;
        folded.add(&record).with_context(meaning)?;
        records += 1;
    }
    for torn in reader.torn() {
        writeln!(
            out,
            "torn by a crash before it was acknowledged, or cut off since: {torn}"
        )?;
    }
    let last = reader.reached();
    writeln!(
        out,
        "{records} records intact; last {} with hash {}",
        last.seq, last.hash
    )?;
    writeln!(
        out,
        "records missing at the end are found by `tellerd run`, which compares with the state store"
    )?;
    let totals = folded.totals;
    writeln!(
        out,
        "{} cash-outs completed, {} canceled, {} open; drift of the books {}",
        totals.completed,
        totals.canceled,
        folded.cashouts.len(),
        totals.drift
    )?;
    Ok(())
}

fn show(data: &Path, cashout: CashOutId, out: &mut impl Write) -> anyhow::Result<()> {
    let mut hash = None;
    let mut found = false;
    for entry in Reader::open(data)? {
        let entry = entry?;
        let record = Record::decode(entry.version, &entry.payload).with_context(|| format!("record {}", entry.seq))?;
        let wanted = match &record.body {
            Body::CashOut { id, event } if *id == cashout => {
                if let crate::cashout::Event::Quoted { quote } = event {
                    hash = Some(quote.hash);
                }
                true
            }
            Body::Invoice { hash: of, .. } => hash == Some(*of),
            Body::Order { order, .. } => is_about(order, cashout),
            _ => false,
        };
        if wanted {
            found = true;
            line(out, entry.seq, &record)?;
        }
    }
    anyhow::ensure!(found, "the journal in {} has no cash-out {cashout}", data.display());
    Ok(())
}

/// Whether an operator's order names this cash-out.
fn is_about(order: &str, cashout: CashOutId) -> bool {
    let order: Value = serde_json::from_str(order).unwrap_or_default();
    let named = order.pointer("/input/cashout").and_then(Value::as_str);
    named.and_then(|id| id.parse().ok()) == Some(cashout)
}

fn export(data: &Path, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    if matches!(format, Format::Csv) {
        writeln!(out, "seq,at_unix_ms,item,id,event,detail").or_else(closed_pipe)?;
    }
    for entry in Reader::open(data)? {
        let entry = entry?;
        let record = Record::decode(entry.version, &entry.payload).with_context(|| format!("record {}", entry.seq))?;
        match format {
            Format::Jsonl => line(out, entry.seq, &record)?,
            Format::Csv => row(out, entry.seq, &record)?,
        }
    }
    Ok(())
}

/// The record as JSON with its number and without secrets.
fn printable(seq: u64, record: &Record) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(record)?;
    redact(&mut value);
    if let Value::Object(fields) = &mut value {
        fields.insert("seq".into(), seq.into());
    }
    Ok(value)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if name == "preimage" {
                    *field = "redacted".into();
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn line(out: &mut impl Write, seq: u64, record: &Record) -> anyhow::Result<()> {
    writeln!(out, "{}", printable(seq, record)?).or_else(closed_pipe)?;
    Ok(())
}

fn row(out: &mut impl Write, seq: u64, record: &Record) -> anyhow::Result<()> {
    let value = printable(seq, record)?;
    let text = |field: &Value| field.as_str().map_or_else(|| field.to_string(), str::to_owned);
    let id = ["id", "hash", "pubkey", "name", "key"]
        .iter()
        .find_map(|name| value.get(name))
        .map(text)
        .unwrap_or_default();
    let (item, event) = record.body.name();
    let detail = match &record.body {
        Body::Order { by, order, .. } => serde_json::json!({"by": by, "order": order}).to_string(),
        _ => value.get("event").map(Value::to_string).unwrap_or_default(),
    };
    let quoted = format!("\"{}\"", detail.replace('"', "\"\""));
    writeln!(out, "{seq},{},{item},{id},{event},{quoted}", record.at.0).or_else(closed_pipe)?;
    Ok(())
}

/// `tellerd journal export | head` is not an error.
fn closed_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::journal_in;

    fn printed(run: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> String {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_order_over_nostr_is_shown_with_its_key_and_its_words() {
        let id = CashOutId::new(crate::time::UnixMs(1_000), 1);
        let body = Body::Order {
            key: crate::ids::NostrKey([2; 32]),
            by: "ada".parse().unwrap(),
            order: format!(r#"{{"method":"resolveCashOut","input":{{"cashout":"{id}","decision":"close"}}}}"#),
        };
        let record = Record {
            at: crate::time::UnixMs(7),
            body,
        };
        let shown = printed(|out| row(out, 3, &record));
        let start = format!("3,7,order,{},received,", "02".repeat(32));
        assert!(shown.starts_with(&start), "{shown}");
        assert!(shown.contains("ada") && shown.contains("resolveCashOut"), "{shown}");
        let Body::Order { order, .. } = &record.body else {
            panic!("{record:?}")
        };
        assert!(is_about(order, id));
        for other in ["drainAtm", r#"{"input":{"cashout":7}}"#, r#"{"input":{"atm":"left"}}"#] {
            assert!(!is_about(other, id), "{other}");
        }
    }

    #[test]
    fn verify_show_and_export_read_what_was_written_and_tell_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        journal_in(dir.path());
        let verified = printed(|out| verify(dir.path(), out));
        assert!(
            verified.contains("1 cash-outs completed, 0 canceled, 1 open; drift of the books 0"),
            "{verified}"
        );
        let id = CashOutId::new(crate::time::UnixMs(1_000), 1);
        let shown = printed(|out| show(dir.path(), id, out));
        assert_eq!(shown.lines().count(), 6, "{shown}");
        let secret = "09".repeat(32);
        let csv = printed(|out| export(dir.path(), Format::Csv, out));
        let jsonl = printed(|out| export(dir.path(), Format::Jsonl, out));
        assert_eq!(csv.lines().count(), jsonl.lines().count() + 1);
        for text in [&shown, &csv, &jsonl] {
            assert!(text.contains("redacted") && !text.contains(&secret), "{text}");
        }
        assert!(show(dir.path(), CashOutId::new(crate::time::UnixMs(9), 9), &mut Vec::new()).is_err());
    }
}
