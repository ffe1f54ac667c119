//! Pieces in any order, of any senders, at any time: what waits stays bounded and is counted right.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nostr::PublicKey;
use parties::NOW;
use tellerd::nostr::wire::shard::{Assembler, MAX_PARTS, Shard, ShardLimits, split};

#[derive(Debug, Arbitrary)]
struct Piece {
    sender: u8,
    id: u8,
    index: u8,
    total: u8,
    part: String,
    later_ms: u16,
}

#[derive(Debug, Arbitrary)]
struct Input {
    pieces: Vec<Piece>,
    text: String,
    room: u16,
}

const LIMITS: ShardLimits = ShardLimits {
    message_bytes: 256,
    total_bytes: 1_024,
    messages_per_sender: 2,
    senders: 3,
    wait: Duration::from_secs(30),
};

fuzz_target!(|input: Input| {
    let mut assembler = Assembler::new(LIMITS);
    let mut now = NOW;
    for piece in input.pieces {
        now = now.plus(Duration::from_millis(piece.later_ms.into()));
        let total = usize::from(piece.total) % MAX_PARTS + 1;
        let shard = Shard {
            part: piece.part,
            index: usize::from(piece.index) % MAX_PARTS,
            total,
            id: format!("{}", piece.id % 4),
        };
        if let Ok(Some(whole)) = assembler.add(PublicKey::from_byte_array([piece.sender % 5; 32]), shard, now) {
            assert!(whole.len() <= LIMITS.message_bytes);
        }
        assert!(assembler.waiting_bytes() <= LIMITS.total_bytes);
        assert!(assembler.waiting_senders() <= LIMITS.senders);
    }
    assembler.expire(now.plus(LIMITS.wait));
    assert_eq!((assembler.waiting_bytes(), assembler.waiting_senders()), (0, 0), "all is given up in the end");
    if let Ok(shards) = split(&input.text, input.room.into(), "id") {
        assert!(shards.iter().all(|shard| shard.encode().len() <= usize::from(input.room)));
        assert_eq!(shards.iter().map(|shard| shard.part.as_str()).collect::<String>(), input.text);
    }
});
