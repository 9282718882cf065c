//! Creates metrics and registers each under the common prefix `latentflow`.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// Creates metrics and registers each of them.
pub(super) struct MetricFactory {
    pub(super) registry: Registry,
}

#[expect(
    clippy::expect_used,
    reason = "names are constants, and a test registers all of them"
)]
impl MetricFactory {
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::new_custom(Some("latentflow".to_owned()), None)
                .expect("the prefix is a valid name"),
        }
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a valid name and labels");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("registered once");
        metric
    }

    pub(super) fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    pub(super) fn counter_vec_f64(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.register(CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge_vec_f64(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    pub(super) fn gauge_f64(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    /// `buckets` holds the first upper bound, the factor between consecutive bounds, and their
    /// number.
    pub(super) fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: (f64, f64, usize),
    ) -> HistogramVec {
        let (first, factor, count) = buckets;
        let bounds = exponential_buckets(first, factor, count).expect("a valid range");
        self.register(HistogramVec::new(
            HistogramOpts::new(name, help).buckets(bounds),
            labels,
        ))
    }
}
