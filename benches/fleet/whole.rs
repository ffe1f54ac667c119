//! A whole daemon with its fleet: how long until all machines are in service, what it costs while nobody comes, what a scrape costs.
//!
//! Its memory is what the process has more than before it, when the emulated machines and the LND were up already: journal, store,
//! actors, drivers, both buffers of each line (which of a real port are the kernel's). What the emulators keep of each question is
//! in it too, about a hundred bytes for each.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Client;
use tellerd::app::{self, Instead};
use tellerd::config::Config;
use tellerd::sim::fleet::meter::Meter;

use super::{Figures, surroundings};

const SCRAPES: usize = 9;

pub(super) fn measure(machines: usize, idle_s: u64) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let (lines, lnd) = surroundings::start(machines, &dir.path().join("lnd"));
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = dir.path().join("fleet.toml");
    std::fs::write(&file, text(machines, http, lnd)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    let meter = Meter::inside();
    let begun = Instant::now();
    let (loaded, is_loaded) = std::sync::mpsc::channel();
    let (_end, ends) = tokio::sync::mpsc::unbounded_channel();
    thread::Builder::new()
        .name("daemon".into())
        .spawn(move || {
            let config = load(&file);
            loaded.send(begun.elapsed()).unwrap();
            let instead = Instead {
                lines,
                ends: Some(ends),
                ..Instead::default()
            };
            app::run(config, tellerd::journal::Options::default().wrap, instead).unwrap();
        })
        .unwrap();
    let config_s = is_loaded.recv().unwrap().as_secs_f64();
    let base = format!("http://127.0.0.1:{http}");
    runtime.block_on(all_ready(&client, &base, machines));
    let ready_s = begun.elapsed().as_secs_f64();
    // A first round of questions, so that the start is over.
    thread::sleep(Duration::from_secs(6));
    let reading = meter.read().unwrap();
    thread::sleep(Duration::from_secs(idle_s));
    let cost = meter.since(reading, machines).unwrap();
    // A new one: the daemon has closed the old connection meanwhile.
    let client = Client::builder().no_proxy().build().unwrap();
    let (scrape_s, scrape) = runtime.block_on(scrape(&client, &format!("{base}/metrics")));
    let socket_s = bare_socket(&runtime, &client, scrape.clone().into_bytes());
    Figures {
        config_s,
        ready_s,
        memory_kib: cost.memory_kib as f64,
        cpu_percent: cost.cpu_percent,
        scrape_s,
        scrape_bytes: scrape.len() as f64,
        scrape_series: scrape.lines().filter(|line| !line.starts_with('#')).count() as f64,
        socket_s,
    }
}

fn load(file: &Path) -> Config {
    Config::load(file).unwrap_or_else(|errors| panic!("{errors}"))
}

fn text(machines: usize, http: u16, lnd: u16) -> String {
    let mut text = format!(
        "data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:{http}\"\ntoken_file = \"token\"\n\
         [lnd]\naddress = \"127.0.0.1:{lnd}\"\ntls_cert = \"lnd/tls.cert\"\nmacaroon = \"lnd/admin.macaroon\"\n\
         [rate]\ncurrency = \"EUR\"\nper_btc = \"100000.00\"\n"
    );
    for index in 0..machines {
        let name = surroundings::name(index);
        text += &format!(
            "[[atm]]\nid = \"{name}\"\nmodel = \"puloon-lcdm4000\"\nvariant = \"standard\"\npath = \"lines/{name}\"\n\
             min_amount = \"20.00\"\nmax_amount = \"500.00\"\n\
             [[atm.cassette]]\nposition = 1\ndenomination = \"20.00\"\nnotes = 500\n\
             [[atm.cassette]]\nposition = 2\ndenomination = \"50.00\"\nnotes = 500\n"
        );
    }
    text
}

async fn all_ready(client: &Client, base: &str, machines: usize) {
    let wanted = format!("\"atms_in_service\":{machines},");
    loop {
        if let Ok(answer) = client.get(format!("{base}/readyz")).send().await
            && answer.text().await.is_ok_and(|text| text.contains(&wanted))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The median time, and the last answer.
async fn scrape(client: &Client, url: &str) -> (f64, String) {
    let (mut times, mut text) = (Vec::new(), String::new());
    for _ in 0..SCRAPES {
        let begun = Instant::now();
        text = client.get(url).send().await.unwrap().text().await.unwrap();
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], text)
}

/// The same bytes, ready at hand, from a thread that does nothing else.
fn bare_socket(runtime: &tokio::runtime::Runtime, client: &Client, body: Vec<u8>) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut request = [0; 1024];
            while connection.read(&mut request).is_ok_and(|count| count > 0) {
                if connection
                    .write_all(head.as_bytes())
                    .and_then(|()| connection.write_all(&body))
                    .is_err()
                {
                    break;
                }
            }
        }
    });
    runtime.block_on(scrape(client, &url)).0
}
