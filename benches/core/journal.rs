//! Durable appends per second, through the journal's own writer, against a bare loop of write and fdatasync.
//!
//! Many writers share a sync. Their limit is the same loop with as many records in each write as there are writers: then
//! every sync is for all of them, and nobody waits for anybody. The disk's bandwidth is that loop with a megabyte.

use std::path::Path;
use std::time::{Duration, Instant};

use tellerd::journal::{Appender, DirLock, Journal, OpenError, Options};
use tokio::task::JoinSet;

use crate::disk::{AROUND, PAYLOAD, Raw};

const WRITERS: [usize; 3] = [1, 16, 256];
const MEGABYTE: usize = 1 << 20;

pub fn run(quick: bool) {
    let (rounds, during) = match quick {
        true => (1, Duration::from_millis(300)),
        false => (5, Duration::from_secs(2)),
    };
    let record = vec![b'x'; PAYLOAD + AROUND];
    let (mut through, mut raw) = (vec![Vec::new(); WRITERS.len()], vec![Vec::new(); WRITERS.len()]);
    let mut bandwidths = Vec::new();
    for _ in 0..rounds {
        for (place, writers) in WRITERS.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            through[place].push(appends(dir.path(), writers, during));
            let mut file = Raw::new(&dir.path().join("raw"));
            raw[place].push(file.per_second(&record.repeat(writers), during) * writers as f64);
        }
        let dir = tempfile::tempdir().unwrap();
        let mut file = Raw::new(&dir.path().join("raw"));
        bandwidths.push(file.per_second(&vec![b'x'; MEGABYTE], during));
    }
    println!("\n## Durable appends per second, records of {PAYLOAD} bytes, the median of {rounds} rounds");
    println!("| writers | journal | raw write + fdatasync, one record for each writer | ratio | times one writer |");
    println!("|---|---|---|---|---|");
    let one = median(&mut through[0].clone());
    for (place, writers) in WRITERS.into_iter().enumerate() {
        let (journal, raw) = (median(&mut through[place]), median(&mut raw[place]));
        let (ratio, times) = (journal / raw, journal / one);
        println!("| {writers} | {journal:.0} | {raw:.0} | {ratio:.2} | {times:.1} |");
    }
    let megabytes = median(&mut bandwidths);
    let used = median(&mut through[2]) * (PAYLOAD + AROUND) as f64 / MEGABYTE as f64;
    println!("The disk takes {megabytes:.0} MiB/s in synced writes of 1 MiB; 256 writers use {used:.0} MiB/s of it.");
}

/// As many tasks as there are writers, each of which waits for its record before it appends the next.
fn appends(dir: &Path, writers: usize, during: Duration) -> f64 {
    let lock = DirLock::take(dir).unwrap();
    let journal = Journal::open(&lock, None, |_| Ok::<(), OpenError>(())).unwrap();
    let (appender, thread) = journal.start(Options::default(), Box::new(|_| {})).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begun = Instant::now();
    let count = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            tasks.spawn(writer(appender.clone(), begun + during));
        }
        tasks.join_all().await.into_iter().sum::<usize>()
    });
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    drop(appender);
    assert!(thread.join());
    rate
}

async fn writer(appender: Appender, until: Instant) -> usize {
    let mut count = 0;
    while Instant::now() < until {
        appender.append(1, vec![b'x'; PAYLOAD]).await.unwrap();
        count += 1;
    }
    count
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
