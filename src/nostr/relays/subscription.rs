//! The state of one relay's subscription: asked for, in place, or closed by the relay and asked for again later.
//!
//! Pure but for the timer's clock. Called by [`super::keeper`]. What must stay true: a relay that closes it again and
//! again is asked less and less often; one that says nothing is taken to have it in place.

use std::time::Duration;

use tokio::time::Instant;

use super::Timings;
use crate::lnd::backoff::Backoff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In place without an answer from then on.
    Asked { until: Instant },
    /// In place.
    InPlace { since: Instant },
    /// To be asked for again then.
    Closed { until: Instant },
}

/// What the timer or an answer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing changed.
    Nothing,
    /// From now on events come in.
    InPlace,
    /// Send the request.
    Ask,
}

/// One subscription on one connection.
#[derive(Debug)]
pub(super) struct Subscription {
    state: State,
    eose: Duration,
    auth: Duration,
    backoff: Backoff,
    /// In a row.
    closed: u32,
}

impl Subscription {
    /// The request was just sent for the first time on this connection.
    pub fn asked(timings: &Timings, now: Instant) -> Self {
        Self {
            state: State::Asked {
                until: now + timings.eose,
            },
            eose: timings.eose,
            auth: timings.auth,
            backoff: timings.resubscribe,
            closed: 0,
        }
    }

    /// When [`Self::due`] has something to do.
    pub fn timer(&self) -> Option<Instant> {
        match self.state {
            State::Asked { until } | State::Closed { until } => Some(until),
            State::InPlace { .. } => None,
        }
    }

    /// The timer has rung.
    pub fn due(&mut self, now: Instant) -> Next {
        match self.state {
            State::Asked { until } if until <= now => self.placed(now),
            State::Closed { until } if until <= now => self.again(now),
            _ => Next::Nothing,
        }
    }

    /// The relay has sent all it had stored.
    pub fn placed(&mut self, now: Instant) -> Next {
        match self.state {
            State::Asked { .. } => {
                self.state = State::InPlace { since: now };
                Next::InPlace
            }
            State::InPlace { .. } | State::Closed { .. } => Next::Nothing,
        }
    }

    /// The relay has closed it. When it wants to know first who asks, the answer to that comes before the timer.
    pub fn closed(&mut self, for_auth: bool, now: Instant, random: u32) {
        if let State::InPlace { since } = self.state
            && now.saturating_duration_since(since) > self.backoff.cap
        {
            self.closed = 0;
        }
        let delay = self.backoff.delay(self.closed, random);
        self.closed = self.closed.saturating_add(1);
        let delay = if for_auth { delay.max(self.auth) } else { delay };
        self.state = State::Closed { until: now + delay };
    }

    /// It is to be asked for again now: the relay knows who asks, or an answer may have been missed.
    pub fn again(&mut self, now: Instant) -> Next {
        self.state = State::Asked { until: now + self.eose };
        Next::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(now: Instant) -> Subscription {
        Subscription::asked(&Timings::default(), now)
    }

    #[test]
    fn an_answer_or_silence_puts_it_in_place_once() {
        let now = Instant::now();
        let mut answered = new(now);
        assert_eq!(answered.placed(now), Next::InPlace);
        assert_eq!((answered.placed(now), answered.timer()), (Next::Nothing, None));
        let mut silent = new(now);
        let until = silent.timer().unwrap();
        assert_eq!(silent.due(now), Next::Nothing);
        assert_eq!(silent.due(until), Next::InPlace);
        assert_eq!(silent.placed(until), Next::Nothing, "late");
    }

    #[test]
    fn a_relay_that_closes_it_at_once_is_asked_less_and_less() {
        let timings = Timings::default();
        let mut now = Instant::now();
        let mut subscription = new(now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            subscription.placed(now);
            subscription.closed(false, now, u32::MAX);
            let until = subscription.timer().unwrap();
            waits.push(until - now);
            now = until;
            assert_eq!(subscription.due(now), Next::Ask);
        }
        assert_eq!(waits[0], timings.resubscribe.first);
        assert!(waits.is_sorted());
        assert_eq!(waits[11], timings.resubscribe.cap);
        subscription.placed(now);
        now += timings.resubscribe.cap * 2;
        subscription.closed(false, now, u32::MAX);
        assert_eq!(
            subscription.timer(),
            Some(now + timings.resubscribe.first),
            "it was good for long"
        );
    }

    #[test]
    fn who_asks_is_told_before_it_is_asked_again() {
        let timings = Timings::default();
        let now = Instant::now();
        let mut subscription = new(now);
        subscription.closed(true, now, 0);
        assert!(subscription.timer().unwrap() >= now + timings.auth);
        assert_eq!(subscription.again(now), Next::Ask);
        assert_eq!(subscription.placed(now), Next::InPlace);
    }
}
