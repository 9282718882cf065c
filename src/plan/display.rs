//! Prints a plan, for `latentflow check`, and its stage graph, for `latentflow graph`.

use std::fmt::{self, Write as _};

use crate::model::OutputsDisplay;
use crate::plan::pipeline::Plan;
use crate::plan::stage::{Stage, StageOperator};
use crate::schema_display::write_columns;
use crate::source::discovery::share::SourceShare;
use crate::text_escape::line;

/// The output format of `latentflow graph`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GraphFormat {
    /// One line per stage with its inputs.
    Text,
    /// A Mermaid flow chart, which GitHub and GitLab render in Markdown.
    Mermaid,
    /// The DOT language of Graphviz.
    Dot,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline {}", self.name)?;
        if let Some(shard) = self.shard {
            writeln!(f, "shard    {shard}")?;
        }
        for model in &self.models {
            writeln!(f, "\nmodel {}: {}", model.name(), model.summary())?;
            write!(f, "{}", OutputsDisplay(model))?;
        }
        for stage in &self.stages {
            writeln!(f)?;
            self.describe(f, stage)?;
        }
        writeln!(f)?;
        if let Some(folder) = self.rejects.as_ref().and_then(|(sink, _)| sink.folder()) {
            writeln!(f, "rejects   {}", folder)?;
        }
        let slots = super::max_in_flight_batches(self.workers);
        writeln!(
            f,
            "segments  1: each worker runs all transforms on one batch at a time"
        )?;
        writeln!(
            f,
            "workers   {}, up to {slots} batches in flight",
            self.workers
        )?;
        write!(f, "memory    {}", self.memory)
    }
}

impl Plan {
    fn describe(&self, f: &mut fmt::Formatter<'_>, stage: &Stage) -> fmt::Result {
        let role = stage.role().as_str();
        write!(f, "{role} {} ({})", stage.name, stage.kind)?;
        if !stage.inputs.is_empty() {
            let inputs: Vec<&str> = stage
                .inputs
                .iter()
                .map(|&at| &*self.stages[at].name)
                .collect();
            write!(f, " <- {}", inputs.join(", "))?;
        }
        writeln!(f)?;
        match &stage.operator {
            StageOperator::Source(source, _) => {
                let skipped_files = source
                    .skipped_files()
                    .map(|counts| counts.get())
                    .unwrap_or_default();
                if !skipped_files.is_empty() {
                    writeln!(f, "  skips {skipped_files}")?;
                }
                if let Some(size) = source.share().and_then(SourceShare::size) {
                    writeln!(f, "  reads {size}, the share of this shard")?;
                }
                for note in source.plan_notes() {
                    writeln!(f, "  note: {}", line(note))?;
                }
            }
            StageOperator::Transform(transform) if transform.image_preparation().is_some() => {
                let steps = transform.image_preparation().map(|way| way.steps(None));
                steps.map_or(Ok(()), |table| write!(f, "{table}"))?
            }
            StageOperator::Transform(transform) if !transform.summary().is_empty() => {
                writeln!(f, "  {}", transform.summary())?
            }
            StageOperator::Sink(sink, _) => {
                if let Some(folder) = sink.folder() {
                    writeln!(f, "  writes {}", folder)?;
                }
            }
            _ => {}
        }
        match stage.schema() {
            Some(schema) => write_columns(f, &schema),
            None => Ok(()),
        }
    }

    /// Formats the stage graph, including a line break at the end.
    pub(crate) fn draw(&self, format: GraphFormat) -> String {
        match format {
            GraphFormat::Text => self.draw_text(),
            GraphFormat::Mermaid => self.draw_mermaid(),
            GraphFormat::Dot => self.draw_dot(),
        }
    }

    fn draw_text(&self) -> String {
        let mut text = String::new();
        for stage in &self.stages {
            let inputs: Vec<&str> = stage
                .inputs
                .iter()
                .map(|&at| &*self.stages[at].name)
                .collect();
            let arrow = if inputs.is_empty() {
                String::new()
            } else {
                format!(" <- {}", inputs.join(" + "))
            };
            // Writing to a string cannot fail, here and in the functions below.
            let _ = writeln!(text, "{:<20} {:<10}{arrow}", stage.name, stage.kind);
        }
        text
    }

    fn draw_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (at, stage) in self.stages.iter().enumerate() {
            let (open, close) = match stage.operator {
                StageOperator::Source(..) => ("([", "])"),
                StageOperator::Transform(_) => ("[", "]"),
                StageOperator::Sink(..) => ("[(", ")]"),
            };
            let _ = writeln!(
                text,
                "    s{at}{open}\"{}<br/>{}\"{close}",
                stage.name, stage.kind
            );
        }
        self.edges(|from, to| {
            let _ = writeln!(text, "    s{from} --> s{to}");
        });
        text
    }

    fn draw_dot(&self) -> String {
        let mut text = format!("digraph \"{}\" {{\n    rankdir=LR;\n", self.name);
        for (at, stage) in self.stages.iter().enumerate() {
            let shape = match stage.operator {
                StageOperator::Source(..) => "ellipse",
                StageOperator::Transform(_) => "box",
                StageOperator::Sink(..) => "cylinder",
            };
            let _ = writeln!(
                text,
                "    s{at} [shape={shape}, label=\"{}\\n{}\"];",
                stage.name, stage.kind
            );
        }
        self.edges(|from, to| {
            let _ = writeln!(text, "    s{from} -> s{to};");
        });
        text.push_str("}\n");
        text
    }

    fn edges(&self, mut draw: impl FnMut(usize, usize)) {
        for (to, stage) in self.stages.iter().enumerate() {
            stage.inputs.iter().for_each(|&from| draw(from, to));
        }
    }
}
