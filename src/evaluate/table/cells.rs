//! The rows and figures of the table.

use std::fmt;

/// Width of the first column, in characters.
pub(super) const NAMES: usize = 22;
/// Width of a column of figures, in characters.
const FIGURES: usize = 14;

pub(super) fn row(f: &mut fmt::Formatter<'_>, name: &str, figures: &[String]) -> fmt::Result {
    write!(f, "  {name:<NAMES$}")?;
    figures
        .iter()
        .try_for_each(|figure| write!(f, "{figure:>FIGURES$}"))?;
    writeln!(f)
}

pub(super) fn heads(f: &mut fmt::Formatter<'_>, title: &str, heads: &[&str]) -> fmt::Result {
    write!(f, "\n{title:<width$}", width = NAMES + 2)?;
    heads
        .iter()
        .try_for_each(|head| write!(f, "{head:>FIGURES$}"))?;
    writeln!(f)
}

/// Formats a number with four significant digits.
pub(super) fn figure(value: f64) -> String {
    let magnitude = if value == 0.0 {
        0.0
    } else {
        value.abs().log10().floor()
    };
    if (-4.0..6.0).contains(&magnitude) {
        let decimals = (3.0 - magnitude).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}
