//! Makes metric families from the catalogue and registers them.
//!
//! Called by [`super::Metrics::new`] only. What must stay true: a family that is not in the catalogue, or
//! that is there as something else, is an error.

use prometheus::core::Collector;
use prometheus::{
    Counter, Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use super::catalogue::{CATALOGUE, Family, Kind};

/// A registry being filled.
pub(super) struct Register(Registry);

impl Register {
    pub fn new() -> Self {
        Self(Registry::new())
    }

    pub fn into_registry(self) -> Registry {
        self.0
    }

    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub fn counter(&self, name: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::with_opts(opts(find(name, "counter")?))?)
    }

    /// A counter of parts, as of seconds.
    pub fn real_counter(&self, name: &str) -> Result<Counter, Error> {
        self.add(Counter::with_opts(opts(find(name, "counter")?))?)
    }

    pub fn counters(&self, name: &str) -> Result<IntCounterVec, Error> {
        let family = find(name, "counter")?;
        self.add(IntCounterVec::new(opts(family), family.labels)?)
    }

    pub fn gauge(&self, name: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::with_opts(opts(find(name, "gauge")?))?)
    }

    /// A gauge that can be NaN.
    pub fn real_gauge(&self, name: &str) -> Result<Gauge, Error> {
        self.add(Gauge::with_opts(opts(find(name, "gauge")?))?)
    }

    pub fn gauges(&self, name: &str) -> Result<IntGaugeVec, Error> {
        let family = find(name, "gauge")?;
        self.add(IntGaugeVec::new(opts(family), family.labels)?)
    }

    pub fn histogram(&self, name: &str) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(histogram_opts(find(name, "histogram")?))?)
    }

    pub fn histograms(&self, name: &str) -> Result<HistogramVec, Error> {
        let family = find(name, "histogram")?;
        self.add(HistogramVec::new(histogram_opts(family), family.labels)?)
    }
}

fn find(name: &str, kind: &str) -> Result<&'static Family, Error> {
    let family = CATALOGUE
        .iter()
        .find(|family| family.name == name && family.kind.as_str() == kind);
    family.ok_or_else(|| Error::Msg(format!("no {kind} {name} in the catalogue")))
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn histogram_opts(family: &Family) -> HistogramOpts {
    let opts = HistogramOpts::new(family.name, family.help);
    match family.kind {
        Kind::Histogram(bounds) => opts.buckets(bounds.to_vec()),
        _ => opts,
    }
}
