//! Rough surroundings: everything at once, and peers that are no relays.

use tokio::net::TcpListener;

use super::*;

/// Sends the word in ever new events, as an impatient client does, until the other side has it.
async fn press(from: &Party, to: &mut Party, word: &str) {
    for attempt in 0.. {
        let event = from.event(to, &format!("{word} {attempt}"));
        // With all these faults the last word is that of the reader.
        _ = from
            .relays
            .publish(event, SystemClock.now().plus(Duration::from_millis(300)))
            .await;
        let heard = async {
            while let Some(arrived) = to.arrived.recv().await {
                if arrived.event.content.starts_with(&format!("{word} ")) {
                    return;
                }
            }
        };
        if timeout(Duration::from_millis(200), heard).await.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn with_all_faults_at_once_everything_arrives_in_the_end() {
    let (first, second) = (relay().await, relay().await);
    let both = [&first, &second];
    let (mut service, mut client) = (Party::at(&both).await, Party::at(&both).await);
    for relay in both {
        relay.set(RelayFaults {
            cut_every: Some(Duration::from_millis(400)),
            outage_every: Some(Duration::from_millis(1_000)),
            outage: Duration::from_millis(200),
            duplicate: 0.3,
            delay: 0.3,
            delay_max: Duration::from_millis(100),
            drop: 0.2,
            lose_ok: 0.2,
            rate_limit: 0.2,
            no_ok: false,
            refuse_subscription: 0.2,
            close_every: Some(Duration::from_millis(300)),
            notice_every: Some(Duration::from_millis(50)),
        });
    }
    for n in 0..15 {
        within(press(&client, &mut service, &format!("question {n}"))).await;
        within(press(&service, &mut client, &format!("answer {n}"))).await;
    }
    for relay in both {
        relay.set(RelayFaults::default());
        relay.outage(Duration::ZERO);
    }
    within(press(&client, &mut service, "last")).await;
    assert!(first.counts().cut + first.counts().outages > 0);
}

#[tokio::test]
async fn a_peer_that_is_no_relay_is_tried_again_and_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for scheme in ["ws", "wss"] {
        let url = RelayUrl::parse(&format!("{scheme}://{address}")).unwrap();
        let party = Party::with(&[url], NonZeroUsize::MIN).await;
        for _ in 0..3 {
            // Hangs up.
            within(listener.accept()).await.unwrap();
        }
        assert_eq!(party.relays.connected(), 0);
        party.relays.stop().await;
    }
}
