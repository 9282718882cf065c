//! Line charts, histograms and scatter plots as inline SVG, in the colors of the style sheet.

use super::html::{Html, HtmlElement, element};
use super::scale::{AxisScale, ScaleKind, figure};

/// Width of a chart in units of its view box, approximately pixels.
const WIDTH: f64 = 560.0;
/// Height of a chart in units of its view box.
const HEIGHT: f64 = 300.0;
/// Margins for the labels of ticks and axes.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 48.0;
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
pub(super) fn line_chart(labels: ChartLabels<'_>, lines: &[LineSeries], kind: ScaleKind) -> Html {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = AxisScale::fit(
        all().map(|(x, _)| x),
        ScaleKind::Linear,
        (LEFT, WIDTH - RIGHT),
    );
    let y = AxisScale::fit(all().map(|(_, y)| y), kind, (HEIGHT - BOTTOM, TOP)).rounded(5);
    let drawn = lines
        .iter()
        .enumerate()
        .map(|(tone, line)| drawn_line(line, tone, labels, &x, &y));
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let inside = [frame(labels, &x, &y)].into_iter().chain(drawn).collect();
    chart(labels, &names, HEIGHT, inside)
}

fn drawn_line(
    line: &LineSeries,
    tone: usize,
    labels: ChartLabels<'_>,
    x: &AxisScale,
    y: &AxisScale,
) -> Html {
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
    let mut group =
        toned(element("g"), tone).with(element("path").class("line").attribute("d", path));
    if points.len() <= MAX_MARKED {
        group = group.all(points.iter().map(|&(px, py)| {
            let text = format!(
                "{}, {} {}: {}",
                line.name,
                labels.x,
                figure(px, 4),
                figure(py, 4)
            );
            let dot = element("circle")
                .attribute("r", 3)
                .attribute("cx", coordinate(x.at(px)))
                .attribute("cy", coordinate(y.at(py)));
            dot.with(element("title").text(text))
        }));
    }
    group.into()
}

/// Draws the histograms of samples, in percent of each sample, with vertical lines at `marks`.
pub(super) fn histogram(
    labels: ChartLabels<'_>,
    samples: &[HistogramSeries<'_>],
    marks: &[(String, f64)],
) -> Html {
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
    let bars = samples
        .iter()
        .zip(&shares)
        .enumerate()
        .map(|(tone, (sample, shares))| {
            let bars = shares
                .iter()
                .enumerate()
                .filter(|(_, share)| **share > 0.0)
                .map(|(bin, &share)| {
                    let edge = |index: usize| x.value(index as f64 / bins as f64);
                    let (from, to) = (edge(bin), edge(bin + 1));
                    let (left, right, top) = (x.at(from), x.at(to), y.at(share));
                    let text = format!(
                        "{}: {} % from {} to {}",
                        sample.name,
                        figure(share, 3),
                        figure(from, 3),
                        figure(to, 3)
                    );
                    element("rect")
                        .attribute("x", coordinate(left + 0.5))
                        .attribute("y", coordinate(top))
                        .attribute("width", coordinate((right - left - 1.0).max(0.5)))
                        .attribute("height", coordinate(y.at(0.0) - top))
                        .with(element("title").text(text))
                });
            toned(element("g"), tone)
                .attribute("data-kind", "bars")
                .all(bars)
                .into()
        });
    let names: Vec<&str> = samples.iter().map(|sample| sample.name).collect();
    let inside = [frame(labels, &x, &y)]
        .into_iter()
        .chain(bars)
        .chain([marked(marks, &x)])
        .collect();
    chart(labels, &names, HEIGHT, inside)
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
fn marked(marks: &[(String, f64)], x: &AxisScale) -> Html {
    const APART: f64 = 40.0;
    let mut row = 0;
    let mut last = f64::NEG_INFINITY;
    let within = marks.iter().filter(|(_, value)| x.contains(*value));
    within
        .map(|(name, value)| {
            let at = x.at(*value);
            row = if at - last < APART { (row + 1) % 3 } else { 0 };
            last = at;
            let line = element("line")
                .attribute("x1", coordinate(at))
                .attribute("x2", coordinate(at))
                .attribute("y1", TOP + MARKS - 6.0)
                .attribute("y2", HEIGHT - BOTTOM);
            let name = element("text")
                .attribute("x", coordinate(at))
                .attribute("y", TOP + MARKS - 10.0 + 15.0 * f64::from(row))
                .attribute("text-anchor", "middle")
                .text(name);
            element("g")
                .class("mark")
                .with(line)
                .with(name)
                .with(element("title").text(figure(*value, 4)))
        })
        .collect()
}

/// Draws groups of points on axes with equal units. With `named`, the name of each group is written
/// at the median of its points.
pub(super) fn scatter_plot(labels: ChartLabels<'_>, clouds: &[ScatterSeries], named: bool) -> Html {
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
    let drawn = order.iter().map(|&tone| {
        let points = clouds[tone]
            .points
            .iter()
            .filter(|(px, py)| x.contains(*px) && y.contains(*py));
        let path: String = points
            .map(|&(px, py)| format!("M{:.1} {:.1}h0", x.at(px), y.at(py)))
            .collect();
        toned(element("g"), tone)
            .with(element("path").class("points").attribute("d", path))
            .into()
    });
    let names = clouds
        .iter()
        .enumerate()
        .filter(|_| named)
        .filter_map(|(tone, cloud)| {
            let (at_x, at_y) = (
                median(cloud.points.iter().map(|p| p.0))?,
                median(cloud.points.iter().map(|p| p.1))?,
            );
            let label = element("text")
                .class("halo")
                .attribute("text-anchor", "middle")
                .attribute("dy", "0.35em");
            let label = label
                .attribute("x", coordinate(x.at(at_x)))
                .attribute("y", coordinate(y.at(at_y)));
            Some(Html::from(
                toned(element("g"), tone).with(label.text(&cloud.name)),
            ))
        });
    let legend: Vec<&str> = clouds.iter().map(|cloud| cloud.name.as_str()).collect();
    let frame = frame_of(labels, &x, &y, MAP_HEIGHT);
    let inside = [frame].into_iter().chain(drawn).chain(names).collect();
    chart(labels, &legend, MAP_HEIGHT, inside)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Number of colors of the style sheet. They repeat; the last is for other groups.
pub(super) const TONES: usize = 10;

fn toned(element: HtmlElement, tone: usize) -> HtmlElement {
    element.attribute("class", format_args!("tone{}", tone % TONES))
}

/// Returns a legend with the color and the name of each series; `None` for a single series.
fn legend(names: &[&str]) -> Option<HtmlElement> {
    let entries = names
        .iter()
        .enumerate()
        .map(|(tone, name)| element("li").with(toned(element("i"), tone)).text(name));
    (names.len() > 1).then(|| element("ul").class("legend").all(entries))
}

fn chart(labels: ChartLabels<'_>, names: &[&str], height: f64, inside: Html) -> Html {
    let text = format!("{}: {} over {}", labels.title, labels.y, labels.x);
    let svg = element("svg")
        .attribute("viewBox", format_args!("0 0 {WIDTH} {height}"))
        .attribute("role", "img")
        .attribute("aria-label", text)
        .with(inside);
    let caption = element("figcaption").with(element("h3").text(labels.title));
    let caption = legend(names).into_iter().fold(caption, HtmlElement::with);
    element("figure")
        .class("chart")
        .with(caption)
        .with(svg)
        .into()
}

fn frame(labels: ChartLabels<'_>, x: &AxisScale, y: &AxisScale) -> Html {
    frame_of(labels, x, y, HEIGHT)
}

/// Draws the grid, the ticks and the names of the axes.
fn frame_of(labels: ChartLabels<'_>, x: &AxisScale, y: &AxisScale, height: f64) -> Html {
    let bottom = height - BOTTOM;
    let label = |px: f64, py: f64, anchor: &str| {
        element("text")
            .attribute("x", coordinate(px))
            .attribute("y", coordinate(py))
            .attribute("text-anchor", anchor)
    };
    let horizontal = y.ticks(5).into_iter().flat_map(|tick| {
        let at = y.at(tick);
        let line =
            element("path").attribute("d", format_args!("M{LEFT} {at:.1}H{}", WIDTH - RIGHT));
        [
            line,
            label(LEFT - 8.0, at + 4.0, "end").text(figure(tick, 3)),
        ]
    });
    let vertical = x
        .ticks(6)
        .into_iter()
        .map(|tick| label(x.at(tick), bottom + 18.0, "middle").text(figure(tick, 4)));
    let axis = element("path")
        .class("axis")
        .attribute("d", format_args!("M{LEFT} {bottom:.1}H{}", WIDTH - RIGHT));
    let x_name = label((LEFT + WIDTH - RIGHT) / 2.0, height - 8.0, "middle")
        .class("name")
        .text(labels.x);
    let y_name = label(0.0, 14.0, "start").class("name");
    let inside = horizontal
        .chain(vertical)
        .chain([axis, x_name, y_name.text(labels.y)]);
    element("g").class("frame").all(inside).into()
}

/// Formats a coordinate with one decimal.
fn coordinate(value: f64) -> String {
    format!("{value:.1}")
}
