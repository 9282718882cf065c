//! Creates metrics and registers each under the common prefix `latentflow`.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// The prefix of the names of all metrics, except for those of the process.
const PREFIX: &str = "latentflow";

/// A metric with its meaning, for the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    /// The full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of the labels.
    pub labels: Vec<String>,
    /// The meaning and the unit.
    pub help: String,
}

/// Creates metrics and registers each of them.
pub(super) struct MetricFactory {
    pub(super) registry: Registry,
    descriptions: RefCell<Vec<MetricDescription>>,
}

#[expect(
    clippy::expect_used,
    reason = "names are constants, and a test registers all of them"
)]
impl MetricFactory {
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::new_custom(Some(PREFIX.to_owned()), None)
                .expect("the prefix is a valid name"),
            descriptions: RefCell::default(),
        }
    }

    /// Returns the metrics that were created, in the order of their creation.
    pub(super) fn descriptions(&self) -> Vec<MetricDescription> {
        self.descriptions.borrow().clone()
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a valid name and labels");
        let kind = match metric.collect().first().map(MetricFamily::get_field_type) {
            Some(MetricType::COUNTER) => "counter",
            Some(MetricType::HISTOGRAM) => "histogram",
            _ => "gauge",
        };
        let described = metric.desc().into_iter().map(|desc| MetricDescription {
            name: format!("{PREFIX}_{}", desc.fq_name),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.descriptions.borrow_mut().extend(described);
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
