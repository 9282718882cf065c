//! The frame of a chart: its size, its axes and its colors.

use maud::{Markup, html};

use crate::report::chart::ChartLabels;
use crate::report::scale::{AxisScale, figure};

/// Width of a chart in units of its view box, approximately pixels.
pub(super) const WIDTH: f64 = 560.0;

/// Height of a chart in units of its view box.
pub(super) const HEIGHT: f64 = 300.0;

/// Margins for the labels of ticks and axes.
pub(super) const LEFT: f64 = 66.0;

pub(super) const RIGHT: f64 = 14.0;

pub(super) const TOP: f64 = 30.0;

pub(super) const BOTTOM: f64 = 48.0;

/// Number of colors of the style sheet. They repeat; the last is for other groups.
pub(in crate::report) const TONES: usize = 10;

pub(super) fn tone_class(tone: usize) -> String {
    format!("tone{}", tone % TONES)
}

/// A figure with a title, a legend of its series if there are several, and the drawing.
pub(super) fn chart(
    labels: ChartLabels<'_>,
    names: &[&str],
    height: f64,
    inside: &Markup,
) -> Markup {
    let view = format!("0 0 {WIDTH} {height}");
    let text = format!("{}: {} over {}", labels.title, labels.y, labels.x);
    html! {
        figure.chart {
            figcaption {
                h3 { (labels.title) }
                @if names.len() > 1 {
                    ul.legend {
                        @for (tone, name) in names.iter().enumerate() {
                            li {
                                i class=(tone_class(tone)) {}
                                (name)
                            }
                        }
                    }
                }
            }
            svg viewBox=(view) role="img" aria-label=(text) {
                (inside)
            }
        }
    }
}

/// Draws the grid, the ticks and the names of the axes.
pub(super) fn frame(labels: ChartLabels<'_>, x: &AxisScale, y: &AxisScale, height: f64) -> Markup {
    let bottom = height - BOTTOM;
    let horizontal = |at: f64| format!("M{LEFT} {at:.1}H{}", WIDTH - RIGHT);
    let label = |px: f64, py: f64, anchor: &str, text: &str| {
        html! {
            text x=(coordinate(px)) y=(coordinate(py)) text-anchor=(anchor) { (text) }
        }
    };
    let x_name = [(LEFT + WIDTH - RIGHT) / 2.0, height - 8.0].map(coordinate);
    let y_name = [0.0, 14.0].map(coordinate);
    html! {
        g.frame {
            @for tick in y.ticks(5) {
                path d=(horizontal(y.at(tick))) {}
                (label(LEFT - 8.0, y.at(tick) + 4.0, "end", &figure(tick, 3)))
            }
            @for tick in x.ticks(6) {
                (label(x.at(tick), bottom + 18.0, "middle", &figure(tick, 4)))
            }
            path.axis d=(horizontal(bottom)) {}
            text.name x=(x_name[0]) y=(x_name[1]) text-anchor="middle" { (labels.x) }
            text.name x=(y_name[0]) y=(y_name[1]) text-anchor="start" { (labels.y) }
        }
    }
}

/// Formats a coordinate with one decimal.
pub(super) fn coordinate(value: f64) -> String {
    format!("{value:.1}")
}
