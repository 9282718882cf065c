//! The metrics of Prometheus.

use latentflow::metrics::Metrics;

use super::{check_page, table};

#[test]
fn metrics_are_current() {
    let metrics = Metrics::new();
    let mut described = metrics.descriptions().to_vec();
    assert!(described.len() > 50, "only {} metrics", described.len());
    described.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = described.into_iter().map(|metric| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        [
            format!("`{}`", metric.name),
            metric.kind.to_owned(),
            labels.collect::<Vec<_>>().join(", "),
            metric.help,
        ]
    });
    let text = format!(
        "`GET /metrics` of the admin listener has these metrics, and the standard ones of the process (`process_*`). A metric with\n\
         labels appears with its first value. [Prometheus](../operations/prometheus.md) has the alerts and the dashboard.\n\n{}",
        table(["metric", "type", "labels", "meaning"], rows)
    );
    check_page("metrics.md", "Metrics", &text);
}
