//! Line charts, histograms and scatter plots as inline SVG, in the colors of the style sheet.

pub(crate) mod frame;

use maud::{Markup, html};

use super::page::all;
use super::scale::{AxisScale, ScaleKind, figure};
use crate::report::chart::frame::{
    BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart, coordinate, frame, tone_class,
};

/// Additional top margin for the names of marks.
const MARKS: f64 = 20.0;
/// Approximate maximum number of points of a drawn line, which is more than its pixels.
const MAX_POINTS: usize = 700;
/// Maximum number of points of a line whose points have markers and tooltips.
const MAX_MARKED: usize = 40;

/// A series of connected points.
pub(super) struct LineSeries {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A sample of values for a histogram.
pub(super) struct HistogramSeries<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<f64>,
}

/// A group of points of a scatter plot.
pub(super) struct ScatterSeries {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// The title of a chart and the names of its axes.
#[derive(Clone, Copy)]
pub(super) struct ChartLabels<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// Draws lines with common axes; `kind` is the scale of the y axis.
pub(super) fn line_chart(labels: ChartLabels<'_>, lines: &[LineSeries], kind: ScaleKind) -> Markup {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = AxisScale::fit(
        all().map(|(x, _)| x),
        ScaleKind::Linear,
        (LEFT, WIDTH - RIGHT),
    );
    let y = AxisScale::fit(all().map(|(_, y)| y), kind, (HEIGHT - BOTTOM, TOP)).rounded(5);
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let inside = html! {
        (frame(labels, &x, &y, HEIGHT))
        @for (tone, line) in lines.iter().enumerate() {
            (drawn_line(line, tone, labels, &x, &y))
        }
    };
    chart(labels, &names, HEIGHT, &inside)
}

fn drawn_line(
    line: &LineSeries,
    tone: usize,
    labels: ChartLabels<'_>,
    x: &AxisScale,
    y: &AxisScale,
) -> Markup {
    let points: Vec<(f64, f64)> = line
        .points
        .iter()
        .copied()
        .filter(|(_, py)| py.is_finite())
        .collect();
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    let mut path = String::new();
    for (at, (px, py)) in points
        .iter()
        .step_by(every)
        .chain(points.last())
        .enumerate()
    {
        let command = if at == 0 { 'M' } else { 'L' };
        path.push_str(&format!("{command}{:.1} {:.1}", x.at(*px), y.at(*py)));
    }
    html! {
        g class=(tone_class(tone)) {
            path.line d=(path) {}
            @if points.len() <= MAX_MARKED {
                @for &(px, py) in &points {
                    circle r="3" cx=(coordinate(x.at(px))) cy=(coordinate(y.at(py))) {
                        title {
                            (line.name) ", " (labels.x) " " (figure(px, 4)) ": " (figure(py, 4))
                        }
                    }
                }
            }
        }
    }
}

/// Draws the histograms of samples, in percent of each sample, with vertical lines at `marks`.
pub(super) fn histogram(
    labels: ChartLabels<'_>,
    samples: &[HistogramSeries<'_>],
    marks: &[(String, f64)],
) -> Markup {
    let values = || {
        samples
            .iter()
            .flat_map(|sample| sample.values.iter().copied())
            .filter(|value| value.is_finite())
    };
    let kind = ScaleKind::fitting(values());
    let x = AxisScale::fit(values(), kind, (LEFT, WIDTH - RIGHT));
    let largest = samples
        .iter()
        .map(|sample| sample.values.len())
        .max()
        .unwrap_or_default();
    let bins = ((largest as f64).sqrt() as usize).clamp(8, 48);
    let shares: Vec<Vec<f64>> = samples
        .iter()
        .map(|sample| binned(&sample.values, &x, bins))
        .collect();
    let plot_top = if marks.is_empty() { TOP } else { TOP + MARKS };
    let y = AxisScale::fit(
        shares.iter().flatten().copied(),
        ScaleKind::Linear,
        (HEIGHT - BOTTOM, plot_top),
    )
    .with_zero()
    .rounded(4);
    let names: Vec<&str> = samples.iter().map(|sample| sample.name).collect();
    let inside = html! {
        (frame(labels, &x, &y, HEIGHT))
        @for (tone, (sample, heights)) in samples.iter().zip(&shares).enumerate() {
            g class=(tone_class(tone)) data-kind="bars" {
                @for (bin, &share) in heights.iter().enumerate().filter(|(_, share)| **share > 0.0) {
                    (bar(sample.name, bin, bins, share, &x, &y))
                }
            }
        }
        (marked(marks, &x))
    };
    chart(labels, &names, HEIGHT, &inside)
}

/// Draws the bar of a bin that holds `share` percent of a sample.
fn bar(sample: &str, bin: usize, bins: usize, share: f64, x: &AxisScale, y: &AxisScale) -> Markup {
    let edge = |index: usize| x.value(index as f64 / bins as f64);
    let (from, to) = (edge(bin), edge(bin + 1));
    let (left, right, top) = (x.at(from), x.at(to), y.at(share));
    let width = coordinate((right - left - 1.0).max(0.5));
    let height = coordinate(y.at(0.0) - top);
    html! {
        rect x=(coordinate(left + 0.5)) y=(coordinate(top)) width=(width) height=(height) {
            title {
                (sample) ": " (figure(share, 3)) " % from " (figure(from, 3)) " to " (figure(to, 3))
            }
        }
    }
}

/// Returns the percentage of the values in each bin.
fn binned(values: &[f64], scale: &AxisScale, bins: usize) -> Vec<f64> {
    let mut shares = vec![0.0; bins];
    for value in values.iter().filter(|value| scale.contains(**value)) {
        let bin = ((scale.share(*value) * bins as f64) as usize).min(bins - 1);
        shares[bin] += 100.0 / values.len() as f64;
    }
    shares
}

/// Draws vertical lines with names above them. Names that would overlap are placed in up to three
/// rows.
fn marked(marks: &[(String, f64)], x: &AxisScale) -> Markup {
    const APART: f64 = 40.0;
    let mut row = 0;
    let mut last = f64::NEG_INFINITY;
    let within = marks.iter().filter(|(_, value)| x.contains(*value));
    all(within.map(|(name, value)| {
        let at = x.at(*value);
        row = if at - last < APART { (row + 1) % 3 } else { 0 };
        last = at;
        let name_y = TOP + MARKS - 10.0 + 15.0 * f64::from(row);
        let at = coordinate(at);
        html! {
            g.mark {
                line x1=(at) x2=(at) y1=(TOP + MARKS - 6.0) y2=(HEIGHT - BOTTOM) {}
                text x=(at) y=(name_y) text-anchor="middle" { (name) }
                title { (figure(*value, 4)) }
            }
        }
    }))
}

/// Draws groups of points on axes with equal units. With `named`, the name of each group is written
/// at the median of its points.
pub(super) fn scatter_plot(
    labels: ChartLabels<'_>,
    clouds: &[ScatterSeries],
    named: bool,
) -> Markup {
    const MAP_HEIGHT: f64 = 440.0;
    let all = || clouds.iter().flat_map(|cloud| cloud.points.iter().copied());
    let x = AxisScale::fit(
        all().map(|(x, _)| x),
        ScaleKind::Linear,
        (LEFT, WIDTH - RIGHT),
    );
    let y = AxisScale::fit(
        all().map(|(_, y)| y),
        ScaleKind::Linear,
        (MAP_HEIGHT - BOTTOM, TOP),
    );
    let (x, y) = AxisScale::with_equal_units(x, y, 0.04);
    let mut order: Vec<usize> = (0..clouds.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(clouds[index].points.len()));
    let legend: Vec<&str> = clouds.iter().map(|cloud| cloud.name.as_str()).collect();
    let inside = html! {
        (frame(labels, &x, &y, MAP_HEIGHT))
        @for tone in order {
            g class=(tone_class(tone)) {
                path.points d=(dots(&clouds[tone], &x, &y)) {}
            }
        }
        @for (tone, cloud) in clouds.iter().enumerate().filter(|_| named) {
            @if let Some([middle_x, middle_y]) = middle(cloud, &x, &y) {
                g class=(tone_class(tone)) {
                    text.halo text-anchor="middle" dy="0.35em" x=(middle_x) y=(middle_y) {
                        (cloud.name)
                    }
                }
            }
        }
    };
    chart(labels, &legend, MAP_HEIGHT, &inside)
}

/// The path of the points of a group that are within the axes.
fn dots(cloud: &ScatterSeries, x: &AxisScale, y: &AxisScale) -> String {
    let points = cloud
        .points
        .iter()
        .filter(|(px, py)| x.contains(*px) && y.contains(*py));
    points
        .map(|&(px, py)| format!("M{:.1} {:.1}h0", x.at(px), y.at(py)))
        .collect()
}

/// The position of the medians of the coordinates of a group.
fn middle(cloud: &ScatterSeries, x: &AxisScale, y: &AxisScale) -> Option<[String; 2]> {
    Some([
        coordinate(x.at(median(cloud.points.iter().map(|point| point.0))?)),
        coordinate(y.at(median(cloud.points.iter().map(|point| point.1))?)),
    ])
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
