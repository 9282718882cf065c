//! The axes of charts: linear and logarithmic scales, their ticks, and the format of numbers.

/// A scale along one axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct AxisScale {
    low: f64,
    high: f64,
    /// Coordinates of `low` and `high`.
    coordinates: (f64, f64),
    kind: ScaleKind,
}

/// The kind of a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleKind {
    /// A linear scale.
    Linear,
    /// A logarithmic scale, for values above 0.
    Log,
}

impl ScaleKind {
    /// Returns a logarithmic scale if all values are above 0 and the maximum is more than 30 times
    /// the minimum, otherwise a linear scale.
    pub(super) fn fitting(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if low > 0.0 && high / low > 30.0 {
            Self::Log
        } else {
            Self::Linear
        }
    }
}

impl AxisScale {
    /// Fits a scale to the finite values.
    pub(super) fn fit(
        values: impl Iterator<Item = f64>,
        kind: ScaleKind,
        coordinates: (f64, f64),
    ) -> Self {
        // Larger values are ignored, because the difference of two values could overflow.
        let usable =
            |value: &f64| value.abs() < 1e150 && (kind == ScaleKind::Linear || *value > 1e-150);
        let (low, high) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
        let (low, high) = match kind {
            _ if low > high => (0.0_f64.max(f64::from(kind == ScaleKind::Log)), 10.0),
            ScaleKind::Linear if low == high => (
                low - low.abs().max(1.0) * 0.5,
                high + high.abs().max(1.0) * 0.5,
            ),
            ScaleKind::Log if low == high => (low / 2.0, high * 2.0),
            _ => (low, high),
        };
        Self {
            low,
            high,
            coordinates,
            kind,
        }
    }

    /// Extends the scale to 0.
    pub(super) fn with_zero(mut self) -> Self {
        self.low = self.low.min(0.0);
        self
    }

    /// Extends both ends of a linear scale to the next tick.
    pub(super) fn rounded(mut self, ticks: usize) -> Self {
        if self.kind == ScaleKind::Linear {
            let step = step(self.high - self.low, ticks);
            self.low = (self.low / step).floor() * step;
            self.high = (self.high / step).ceil() * step;
        }
        self
    }

    /// Gives two linear scales equal units; `margin` is the share of the length that is added at
    /// each end.
    pub(super) fn with_equal_units(x: Self, y: Self, margin: f64) -> (Self, Self) {
        let length = |scale: &Self| (scale.coordinates.1 - scale.coordinates.0).abs().max(1.0);
        let per_unit = ((x.high - x.low) / length(&x)).max((y.high - y.low) / length(&y))
            * (1.0 + 2.0 * margin);
        let [x, y] = [x, y].map(|scale| {
            let (middle, half) = (
                f64::midpoint(scale.low, scale.high),
                per_unit * length(&scale) / 2.0,
            );
            Self {
                low: middle - half,
                high: middle + half,
                ..scale
            }
        });
        (x, y)
    }

    /// Returns the coordinate of a value, also outside of the scale.
    pub(super) fn at(&self, value: f64) -> f64 {
        let (from, to) = self.coordinates;
        from + self.share(value) * (to - from)
    }

    /// Returns the position of a value on the scale, from 0 at the low end to 1 at the high end.
    pub(super) fn share(&self, value: f64) -> f64 {
        match self.kind {
            ScaleKind::Linear => (value - self.low) / (self.high - self.low),
            ScaleKind::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    /// Returns the value at a position from 0 to 1.
    pub(super) fn value(&self, share: f64) -> f64 {
        match self.kind {
            ScaleKind::Linear => self.low + share * (self.high - self.low),
            ScaleKind::Log => self.low * (self.high / self.low).powf(share),
        }
    }

    /// Whether a value is on the scale.
    pub(super) fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Returns approximately `about` round values on the scale.
    pub(super) fn ticks(&self, about: usize) -> Vec<f64> {
        if self.kind == ScaleKind::Log {
            return self.decades(about);
        }
        let step = step(self.high - self.low, about);
        let first = (self.low / step - 1e-9).ceil();
        let all = (0..100)
            .map(|n| (first + f64::from(n)) * step)
            .take_while(|tick| *tick <= self.high + step * 1e-9);
        // Rounding errors near 0 are removed.
        all.map(|tick| if tick.abs() < step * 1e-9 { 0.0 } else { tick })
            .collect()
    }

    fn decades(&self, about: usize) -> Vec<f64> {
        let (low, high) = (
            self.low.log10().floor() as i32,
            self.high.log10().ceil() as i32,
        );
        let span = (self.high / self.low).log10();
        let decades = span.ceil() as usize;
        let within: &[f64] = if span * 2.0 <= about as f64 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let every = decades.div_ceil(about.max(1)).max(1);
        let ticks = (low..=high)
            .step_by(every)
            .flat_map(|power| within.iter().map(move |m| m * 10.0_f64.powi(power)));
        ticks
            .filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick))
            .collect()
    }
}

/// Returns a step of 1, 2 or 5 times a power of ten that divides the span into approximately
/// `about` parts.
fn step(span: f64, about: usize) -> f64 {
    let rough = (span / about.max(1) as f64).max(f64::MIN_POSITIVE);
    let power = 10.0_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Formats a number with at most `digits` significant digits, without trailing zeros.
pub(super) fn figure(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value.is_nan() {
            "–".to_owned()
        } else {
            format!("{value}")
        };
    }
    let magnitude = value.abs().log10().floor();
    let text = if (-4.0..6.0).contains(&magnitude) {
        let decimals = (digits as f64 - 1.0 - magnitude).max(0.0) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    } else {
        let text = format!("{value:.*e}", digits.saturating_sub(1));
        let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        format!("{mantissa}e{power}")
    };
    text.replace('-', "−")
}

/// Formats an integer with its digits in groups of three.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(values: &[f64], kind: ScaleKind, expected: Expect) {
        let scale = AxisScale::fit(values.iter().copied(), kind, (0.0, 100.0));
        let ticks: Vec<String> = scale
            .ticks(5)
            .into_iter()
            .map(|tick| figure(tick, 3))
            .collect();
        expected.assert_eq(&ticks.join(" "));
    }

    #[test]
    fn ticks_are_round_and_few() {
        check(
            &[0.0, 1.0],
            ScaleKind::Linear,
            expect!["0 0.2 0.4 0.6 0.8 1"],
        );
        check(&[-3.2, 17.0], ScaleKind::Linear, expect!["0 5 10 15"]);
        check(&[5.0], ScaleKind::Linear, expect!["3 4 5 6 7"]);
        check(&[], ScaleKind::Linear, expect!["0 2 4 6 8 10"]);
        check(&[], ScaleKind::Log, expect!["1 2 5 10"]);
        check(
            &[0.0012, 0.03],
            ScaleKind::Log,
            expect!["0.002 0.005 0.01 0.02"],
        );
        check(
            &[1e-9, 1e3],
            ScaleKind::Log,
            expect!["1e−9 1e−6 0.001 1 1000"],
        );
        check(
            &[f64::NAN, 1.0, 3.0],
            ScaleKind::Linear,
            expect!["1 1.5 2 2.5 3"],
        );
        check(&[1e300, -1e300], ScaleKind::Linear, expect!["0 2 4 6 8 10"]);
    }

    #[test]
    fn values_are_mapped_to_coordinates_and_back() {
        let linear = AxisScale::fit([0.0, 10.0].into_iter(), ScaleKind::Linear, (100.0, 0.0));
        assert_eq!(
            (linear.at(0.0), linear.at(2.5), linear.value(0.25)),
            (100.0, 75.0, 2.5)
        );
        let log = AxisScale::fit([0.01, 100.0].into_iter(), ScaleKind::Log, (0.0, 100.0));
        assert!((log.at(1.0) - 50.0).abs() < 1e-9 && (log.value(0.5) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_formatted_with_significant_digits() {
        let all = [
            0.0,
            1.0,
            0.5,
            12.3456,
            123_456.0,
            1.5e7,
            -0.000_25,
            1e-7,
            f64::NAN,
            f64::INFINITY,
        ];
        let all: Vec<String> = all.into_iter().map(|value| figure(value, 4)).collect();
        expect!["0 1 0.5 12.35 123456 1.5e7 −0.00025 1e−7 – inf"].assert_eq(&all.join(" "));
        assert_eq!(
            [7, 1000, 1_234_567].map(count),
            ["7", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
    }
}
