//! Server-sent events: from the bytes of a stream to its events.
//!
//! Called by [`super::client`]. Pure. Source: the WHATWG HTML standard, "Server-sent events". What must stay true: how
//! the bytes are cut into chunks changes nothing, and memory is bounded.

/// More than any event of tellerd has.
const MOST_BYTES: usize = 1 << 20;

/// One event with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// `message` when the stream does not say.
    pub name: String,
    pub data: String,
}

/// A line or an event without end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What of the stream has arrived and is not yet an event.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// The events that `chunk` completes.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for byte in chunk {
            let ends_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if ends_cr => {}
                b'\r' | b'\n' => events.extend(self.end_line()),
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.data.len() > MOST_BYTES {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments (no name) and fields that mean nothing here.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        let name = if name.is_empty() { "message".to_owned() } else { name };
        std::mem::take(&mut self.has_data).then_some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Vec<(String, String)> {
        let events = Parser::default().push(text.as_bytes()).unwrap();
        events.into_iter().map(|event| (event.name, event.data)).collect()
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn lines_end_in_three_ways() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "event: cashout\ndata: {}\n\ndata:x\n\n".replace('\n', end);
            assert_eq!(all(&text), [event("cashout", "{}"), event("message", "x")], "{end:?}");
        }
    }

    #[test]
    fn comments_unknown_fields_and_events_without_data_are_nothing() {
        assert_eq!(
            all(": still here\n\nid: 7\nretry: 1\n\nevent: x\n\ndata: y\n\n"),
            [event("message", "y")]
        );
    }

    #[test]
    fn data_of_many_lines_is_joined_and_one_space_is_dropped() {
        assert_eq!(
            all("data: a\ndata:  b\ndata\ndata:c\n\n"),
            [event("message", "a\n b\n\nc")]
        );
    }

    #[test]
    fn an_event_without_its_empty_line_has_not_arrived() {
        assert_eq!(all("data: a\n"), []);
    }

    #[test]
    fn memory_is_bounded() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1 << 16];
        assert!((0..20).any(|_| parser.push(&chunk) == Err(TooLong)));
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(text in "(event: [a-zé]{0,3}|data: ?[a-zü:]{0,4}|: x|\r\n|\n|\r){0,24}", cuts in prop::collection::vec(0_usize..200, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let (mut from, mut found) = (0, Vec::new());
            for to in cuts {
                found.extend(parser.push(&bytes[from..to]).unwrap());
                from = to;
            }
            prop_assert_eq!(found, Parser::default().push(bytes).unwrap());
        }
    }
}
