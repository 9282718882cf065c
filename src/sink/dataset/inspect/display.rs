//! The text form of the description of a dataset.

use std::fmt;

use crate::coverage::RangeSet;
use crate::schema_display::write_columns;
use crate::sink::dataset::inspect::DatasetDescription;
use crate::sink::dataset::summary_stats::SummaryStats;
use crate::text_escape::line;
use crate::units::ByteSize;

impl fmt::Display for DatasetDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.location)?;
        writeln!(
            f,
            "rows         {} in {} of {}",
            self.rows,
            count(self.files, "file"),
            ByteSize(self.bytes)
        )?;
        if self.files > 0 {
            writeln!(f, "columns")?;
            write_columns(f, &self.schema)?;
        }
        for file in &self.different {
            writeln!(f, "             {file} has other columns")?;
        }
        self.write_errors(f)?;
        self.write_origin(f)
    }
}

/// Maximum number of splits, and of ranges of each split, that the text lists.
const MAX_SHOWN: usize = 12;

/// The text of half-open ranges, such as `0..12, 20..22`.
fn ranges(rows: &RangeSet) -> String {
    let shown = rows
        .ranges()
        .take(MAX_SHOWN)
        .map(|range| format!("{}..{}", range.start, range.end));
    let mut parts: Vec<String> = shown.collect();
    let len = rows.ranges().count();
    if len > MAX_SHOWN {
        parts.push(format!("... and {} more", len - MAX_SHOWN));
    }
    parts.join(", ")
}

pub(super) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A number with six digits, and with an exponent if it is very small or very large.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e6).contains(&size) => format!("{value:.6}"),
        _ => format!("{value:.5e}"),
    }
}

impl DatasetDescription {
    fn write_errors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return Ok(());
        }
        let width = self
            .errors
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let head = ["count", "mean", "std", "min", "p50", "p99", "max"];
        let head: String = head.iter().map(|name| format!("  {name:>12}")).collect();
        writeln!(f, "errors\n    {:width$}{head}", "")?;
        for (name, summary) in &self.errors {
            let SummaryStats {
                count,
                not_finite,
                mean,
                std,
                min,
                p50,
                p99,
                max,
                exact,
            } = summary;
            write!(f, "    {name:width$}  {count:>12}")?;
            for value in [mean, std, min, p50, p99, max] {
                write!(f, "  {:>12}", short(*value))?;
            }
            let estimated = if *exact {
                ""
            } else {
                "  (quantiles within 1 %)"
            };
            let infinite = if *not_finite == 0 {
                String::new()
            } else {
                format!("  ({not_finite} not finite)")
            };
            writeln!(f, "{estimated}{infinite}")?;
        }
        Ok(())
    }

    fn write_origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.foreign {
            0 => {}
            all if all == self.files && self.writers.is_empty() => {
                return writeln!(f, "provenance   none: not written by latentflow");
            }
            some => writeln!(
                f,
                "provenance   none of {}: not written by latentflow",
                count(some, "file")
            )?,
        }
        for (identity, version) in &self.writers {
            writeln!(
                f,
                "pipeline     {}, stage {}",
                line(&identity.pipeline),
                line(&identity.stage)
            )?;
            writeln!(f, "digest       {}", line(&identity.digest))?;
            for (name, digest) in &identity.models {
                writeln!(f, "model        {} {}", line(name), line(digest))?;
            }
            if let Some(version) = version {
                writeln!(f, "version      latentflow {}", line(version))?;
            }
        }
        let splits = self.coverage.splits();
        writeln!(
            f,
            "source rows  {} of {}",
            self.coverage.len(),
            count(splits.len() as u64, "split")
        )?;
        for (name, rows) in splits.iter().take(MAX_SHOWN) {
            writeln!(f, "    {}: {}", line(name), ranges(rows))?;
        }
        match splits.len() {
            all if all > MAX_SHOWN => writeln!(f, "    ... and {} more", all - MAX_SHOWN),
            _ => Ok(()),
        }
    }
}
