//! The limit: the same drivers on the same lines, asked as often, with nothing around them.

use std::thread;
use std::time::Duration;

use tellerd::hardware::device::{DeviceConfig, Model, open};
use tellerd::hardware::port::{Connect, Line};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::sim::fleet::meter::Meter;
use tokio::task::JoinSet;

use super::{Figures, surroundings};

/// As in `src/actors/hardware.rs`.
const PROBE: Duration = Duration::from_secs(5);

pub(super) fn measure(machines: usize, idle_s: u64) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let (lines, _) = surroundings::start(machines, &dir.path().join("lnd"));
    let meter = Meter::inside();
    let (opened, is_open) = std::sync::mpsc::channel();
    thread::Builder::new()
        .name("drivers".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                for (index, connect) in lines.into_values().enumerate() {
                    tasks.spawn(ask(
                        connect,
                        PROBE.mul_f64(index as f64 / machines as f64),
                        opened.clone(),
                    ));
                }
                while tasks.join_next().await.is_some() {}
            });
        })
        .unwrap();
    for _ in 0..machines {
        is_open.recv().unwrap();
    }
    thread::sleep(Duration::from_secs(6));
    let reading = meter.read().unwrap();
    thread::sleep(Duration::from_secs(idle_s));
    let cost = meter.since(reading, machines).unwrap();
    Figures {
        memory_kib: cost.memory_kib as f64,
        cpu_percent: cost.cpu_percent,
        ..Figures::default()
    }
}

async fn ask(connect: Connect, first: Duration, opened: std::sync::mpsc::Sender<()>) {
    let config = DeviceConfig {
        line: Line::Memory(connect),
        ..DeviceConfig::new(Model::PuloonLcdm4000, Variant::Standard, "")
    };
    let mut driver = open(&config).await.unwrap();
    driver.initialise().await.unwrap();
    opened.send(()).unwrap();
    tokio::time::sleep(first).await;
    loop {
        driver.status().await.unwrap();
        tokio::time::sleep(PROBE).await;
    }
}
