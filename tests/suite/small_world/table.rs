//! The states that a real machine takes in the small world, numbered; what each event does to each, worked out once.
//!
//! Called by the model. Must stay true: two states get one number only when the machine can not tell them apart.

use std::collections::HashMap;

use serde::Serialize;
use tellerd::actors::item::Machine;

/// A state or an event by its number; 0 is none.
pub type Id = u16;

/// What an event does to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Next(Id),
    Refused,
}

/// What became of an event that was offered to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It changes nothing.
    Unchanged,
    /// It is being written down.
    Writing,
    /// It waits behind another.
    Waiting,
    /// It may not happen.
    Refused,
}

/// An item of `actors::item`, as far as the order of its events goes: the durable state, the event that is being written
/// down, one that waits behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Half {
    pub state: Id,
    pub writes: Id,
    pub waits: Id,
}

impl Half {
    pub fn is_quiet(self) -> bool {
        self.writes == 0 && self.waits == 0
    }
}

/// How a machine that was broken on purpose answers, given the real answer.
pub type Twist<M> = fn(&M, &<M as Machine>::Event, Answer<M>) -> Answer<M>;
pub type Answer<M> = Result<Option<M>, String>;

pub struct Table<M: Machine> {
    states: Vec<M>,
    events: Vec<M::Event>,
    numbers: HashMap<String, Id>,
    known: HashMap<(Id, Id), Verdict>,
    canonical: fn(M) -> M,
    twist: Option<Twist<M>>,
}

impl<M: Machine + Serialize> Table<M>
where
    M::Event: PartialEq,
{
    pub fn new(canonical: fn(M) -> M, twist: Option<Twist<M>>) -> Self {
        Self {
            states: Vec::new(),
            events: Vec::new(),
            numbers: HashMap::new(),
            known: HashMap::new(),
            canonical,
            twist,
        }
    }

    pub fn id(&mut self, state: M) -> Id {
        let state = (self.canonical)(state);
        let text = serde_json::to_string(&state).unwrap();
        let states = &mut self.states;
        *self.numbers.entry(text).or_insert_with(|| {
            states.push(state);
            Id::try_from(states.len()).unwrap()
        })
    }

    pub fn event(&mut self, event: M::Event) -> Id {
        let known = self.events.iter().position(|known| *known == event);
        let place = known.unwrap_or_else(|| {
            self.events.push(event);
            self.events.len() - 1
        });
        Id::try_from(place + 1).unwrap()
    }

    pub fn get(&self, id: Id) -> Option<&M> {
        self.states.get(usize::from(id).checked_sub(1)?)
    }

    pub fn get_event(&self, id: Id) -> Option<&M::Event> {
        self.events.get(usize::from(id).checked_sub(1)?)
    }

    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// The real `apply`, asked once for each pair.
    pub fn next(&mut self, state: Id, event: Id) -> Verdict {
        if let Some(known) = self.known.get(&(state, event)) {
            return *known;
        }
        let (before, what) = (
            &self.states[usize::from(state) - 1],
            &self.events[usize::from(event) - 1],
        );
        let mut answer = before.apply(what).map_err(|refusal| refusal.to_string());
        if let Some(twist) = self.twist {
            answer = twist(before, what, answer);
        }
        let verdict = match answer {
            Err(_) => Verdict::Refused,
            Ok(None) => Verdict::Same,
            Ok(Some(next)) => match self.id(next) {
                same if same == state => Verdict::Same,
                next => Verdict::Next(next),
            },
        };
        self.known.insert((state, event), verdict);
        verdict
    }

    /// As `Item::offer` and `Item::step`; `None` when no place is left for an event that has to wait.
    pub fn offer(&mut self, mut half: Half, event: Id) -> Option<(Half, Told)> {
        if half.writes != 0 {
            let free = half.waits == 0 && half.writes != event;
            half.waits = event;
            return free.then_some((half, Told::Waiting));
        }
        let told = match self.next(half.state, event) {
            Verdict::Same => Told::Unchanged,
            Verdict::Refused => Told::Refused,
            Verdict::Next(_) => {
                half.writes = event;
                Told::Writing
            }
        };
        Some((half, told))
    }

    /// As `Item::adopt`: the event is durable, and the one behind it is looked at. Tells what became of that one.
    pub fn adopt(&mut self, mut half: Half) -> (Half, Option<(Id, Told)>) {
        if let Verdict::Next(next) = self.next(half.state, half.writes) {
            half.state = next;
        }
        self.forget(half)
    }

    /// As `Item::not_written` for an event that perishes.
    pub fn forget(&mut self, mut half: Half) -> (Half, Option<(Id, Told)>) {
        half.writes = 0;
        let waited = std::mem::take(&mut half.waits);
        if waited == 0 {
            return (half, None);
        }
        match self.offer(half, waited) {
            Some((half, told)) => (half, Some((waited, told))),
            None => (half, None),
        }
    }

    pub fn perishes(&self, event: Id) -> bool {
        self.get_event(event).is_some_and(M::perishes)
    }
}
