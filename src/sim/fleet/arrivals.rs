//! When the customers of one machine come.
//!
//! Part of a scenario's `[customers]`; used by the customers' tasks. Pure. What must stay true: `poisson` arrivals do not depend on how
//! long the machine serves anybody; over a whole day there are as many as `pause` says, whatever the profile.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use toml::de::DeValue;

use super::world::around;
use crate::config::reader::Section;
use crate::config::value::{duration, number, text};

/// Hours of a day, each with its weight.
const HOURS: usize = 24;

/// How the next customer's time is drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// Some time after the one before has gone: a quarter to seven quarters of the pause.
    Regular,
    /// A Poisson process, through a day with its quiet and its busy hours.
    Poisson(Arc<Day>),
}

/// A day of the simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// How long it lasts.
    length: Duration,
    /// The intensity of each hour, 1 on average.
    hours: [f64; HOURS],
}

impl Arrivals {
    /// Reads `arrivals`, `day` and `hours`.
    pub(super) fn read(section: &mut Section) -> Self {
        let arrivals = section.or("arrivals", text, "regular".to_owned());
        let length = section.or("day", duration, Duration::from_secs(24 * 3600));
        let hours = section.or("hours", hours, [1; HOURS]);
        match arrivals.as_str() {
            "poisson" => Self::Poisson(Arc::new(Day::new(length, hours))),
            "regular" => {
                for key in ["day", "hours"] {
                    if section.has(key) {
                        section.mistake(key, "needs arrivals = \"poisson\"");
                    }
                }
                Self::Regular
            }
            other => {
                section.mistake("arrivals", format!("`{other}` is not known: regular, poisson"));
                Self::Regular
            }
        }
    }
}

fn hours(value: &DeValue) -> Result<[u32; HOURS], String> {
    let expected = "24 weights expected, one for each hour from midnight, not all zero";
    let array = value.as_array().ok_or(expected)?;
    let weights: Result<Vec<u32>, String> = array
        .iter()
        .map(|value| number(0..=1000_u32)(value.get_ref()))
        .collect();
    let weights: [u32; HOURS] = weights?.try_into().map_err(|_| expected)?;
    if weights.iter().all(|weight| *weight == 0) {
        return Err(expected.into());
    }
    Ok(weights)
}

impl Day {
    fn new(length: Duration, weights: [u32; HOURS]) -> Self {
        let sum: u32 = weights.iter().sum();
        let mean = f64::from(sum.max(1)) / HOURS as f64;
        Self {
            length,
            hours: weights.map(|weight| f64::from(weight) / mean),
        }
    }

    /// When the next customer comes after one that came at `from` (both since the opening, which is at midnight), when there is one
    /// in each `pause` on average. `chance` is exponential with mean 1: so much intensity passes between the two.
    fn next(&self, from: Duration, pause: Duration, chance: f64) -> Duration {
        let hour = self.length.as_secs_f64() / HOURS as f64;
        let mut at = from.as_secs_f64();
        let mut left = chance * pause.as_secs_f64();
        // Whole days at once: each has as much as its length.
        let days = (left / self.length.as_secs_f64()).floor();
        at += days * self.length.as_secs_f64();
        left -= days * self.length.as_secs_f64();
        // What is left is less than a day's; two days are enough for any rounding.
        let mut index = (at / hour).floor();
        for _ in 0..2 * HOURS {
            let intensity = self.hours[(index as usize) % HOURS];
            let end = (index + 1.0) * hour;
            let here = intensity * (end - at).max(0.0);
            if here >= left && intensity > 0.0 {
                return Duration::from_secs_f64(at + left / intensity);
            }
            left -= here;
            at = end;
            index += 1.0;
        }
        Duration::from_secs_f64(at)
    }
}

/// The customers of one machine, one after the other.
pub struct Queue {
    arrivals: Arrivals,
    pause: Duration,
    last: Duration,
}

impl Queue {
    /// Nobody came so far.
    #[must_use]
    pub fn new(arrivals: &Arrivals, pause: Duration) -> Self {
        Self {
            arrivals: arrivals.clone(),
            pause,
            last: Duration::ZERO,
        }
    }

    /// How long until the next one is served, `now` being the time since the opening. Of those who came while the machine was
    /// busy each waits for its turn.
    pub fn wait(&mut self, random: &mut StdRng, now: Duration) -> Duration {
        match &self.arrivals {
            Arrivals::Regular => around(random, self.pause),
            Arrivals::Poisson(day) => {
                let chance = -(1.0 - random.random::<f64>()).ln();
                self.last = day.next(self.last, self.pause, chance);
                self.last.saturating_sub(now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn office_hours() -> Day {
        let mut hours = [0; HOURS];
        hours[9..17].fill(3);
        Day::new(Duration::from_secs(240), hours)
    }

    /// Arrivals in `days` days of four minutes.
    fn drawn(day: &Day, days: u64) -> Vec<Duration> {
        let mut random = StdRng::seed_from_u64(7);
        let mut queue = Queue::new(&Arrivals::Poisson(Arc::new(day.clone())), PAUSE);
        let end = Duration::from_secs(240 * days);
        std::iter::from_fn(|| {
            // Whenever it is asked, the arrival is the same.
            let now = queue.last;
            Some(now + queue.wait(&mut random, now))
        })
        .take_while(|at| *at < end)
        .collect()
    }

    #[test]
    fn there_are_as_many_as_the_pause_says_with_the_spread_of_chance() {
        for day in [Day::new(Duration::from_secs(240), [1; HOURS]), office_hours()] {
            let days = 500_usize;
            let mut counts = vec![0_u32; days];
            for at in drawn(&day, days as u64) {
                counts[usize::try_from(at.as_secs() / 240).unwrap()] += 1;
            }
            let mean = f64::from(counts.iter().sum::<u32>()) / days as f64;
            let variance = counts
                .iter()
                .map(|count| (f64::from(*count) - mean).powi(2))
                .sum::<f64>()
                / days as f64;
            // 24 a day; of a Poisson process the variance is the mean. Standard deviations: 0.22 and 1.5.
            assert!((mean - 24.0).abs() < 1.0, "{mean}");
            assert!((variance - 24.0).abs() < 6.0, "{variance}");
        }
    }

    #[test]
    fn nobody_comes_in_an_hour_without_weight() {
        let day = office_hours();
        let arrivals = drawn(&day, 50);
        assert!(arrivals.len() > 1000, "{}", arrivals.len());
        for at in arrivals {
            let hour = at.as_secs_f64() % 240.0 / 10.0;
            assert!((9.0..=17.0).contains(&hour), "{at:?} is at {hour}");
        }
    }

    #[test]
    fn who_finds_the_machine_busy_waits_for_his_turn() {
        let mut random = StdRng::seed_from_u64(1);
        let day = Day::new(Duration::from_secs(240), [1; HOURS]);
        let mut queue = Queue::new(&Arrivals::Poisson(Arc::new(day)), PAUSE);
        let late = Duration::from_secs(3600);
        for _ in 0..100 {
            assert_eq!(queue.wait(&mut random, late), Duration::ZERO);
        }
    }
}
