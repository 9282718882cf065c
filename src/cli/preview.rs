//! `latentflow preview`: shows an image as the `pixels` stages of a pipeline prepare it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{PipelineArgs, print};
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::code::ErrorCode;
use crate::fs_durable::bounded_read::read_bounded;
use crate::fs_durable::write_atomically;
use crate::image::prepared::ImagePreparation;
use crate::metrics::Metrics;
use crate::plan::pipeline::Plan;
use crate::plan::stage::StageOperator;
use crate::registry::did_you_mean;
use crate::report::Preview;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PreviewCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The image file. The sources of the pipeline are not read.
    #[arg(value_name = "FILE")]
    image: PathBuf,
    /// Show this `pixels` stage only; may be repeated. Default: all of them.
    #[arg(long, value_name = "NAME")]
    stage: Vec<String>,
    /// File to write: a page (.html) or a picture (.png); an existing file is replaced. Default: no
    /// file, only the text.
    #[arg(long, short, visible_alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  latentflow preview photos.toml cat.jpg                  the steps, with sizes and values
  latentflow preview photos.toml cat.jpg -o preview.html  the original next to the tensor
  latentflow preview photos.toml cat.jpg -o preview.png   the same as a picture
  latentflow preview photos.toml cat.jpg --set stages.pixels.preset=clip

The picture of the tensor shows its values with `range`, `mean` and `std` undone. The exit code is 3
if a stage rejects the image.";

/// The form of the output.
#[derive(Clone, Copy)]
enum OutputKind {
    Page,
    Picture,
}

impl PreviewCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.output.as_deref().map(output_kind).transpose()?;
        let plan = self.pipeline.plan(&Arc::new(Metrics::new()))?;
        let stages = self.stages(&plan)?;
        let name = self.image.display();
        let bytes = read_bounded(&self.image, plan.limits.record_bytes.0)
            .with_context(|| format!("cannot read {name}"))?;
        let preview = Preview::new(name.to_string(), &bytes, &stages);
        print(&preview.text())?;
        if let (Some(path), Some(kind)) = (&self.output, output) {
            let content = match kind {
                OutputKind::Page => preview.page().into_bytes(),
                OutputKind::Picture => preview.picture()?,
            };
            write_atomically(path, &content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            print(&format!("\n{}\n", path.display()))?;
        }
        Ok(match preview.has_reject() {
            true => ExitCode::Rejects,
            false => ExitCode::Done,
        })
    }

    /// The selected stages that prepare images.
    fn stages<'a>(&self, plan: &'a Plan) -> anyhow::Result<Vec<(&'a str, &'a ImagePreparation)>> {
        let all = plan
            .stages
            .iter()
            .filter_map(|stage| match &stage.operator {
                StageOperator::Transform(transform) => {
                    Some((&*stage.name, transform.image_preparation()?))
                }
                _ => None,
            });
        let all: Vec<(&str, &ImagePreparation)> = all.collect();
        if all.is_empty() {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "{}: no stage prepares images; add a stage with `kind = \"pixels\"`",
                    self.pipeline.file.display()
                )
            ));
        }
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        if let Some(unknown) = self
            .stage
            .iter()
            .find(|name| !names.contains(&name.as_str()))
        {
            let near = did_you_mean(unknown, &names);
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "--stage {unknown}: not a `pixels` stage{near}; the pipeline has: {}",
                    names.join(", ")
                )
            ));
        }
        let is_selected =
            |name: &str| self.stage.is_empty() || self.stage.iter().any(|chosen| chosen == name);
        Ok(all
            .into_iter()
            .filter(|(name, _)| is_selected(name))
            .collect())
    }
}

/// The form that the ending of a file names.
fn output_kind(path: &Path) -> anyhow::Result<OutputKind> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    match ending.to_str() {
        Some("html" | "htm") => Ok(OutputKind::Page),
        Some("png") => Ok(OutputKind::Picture),
        _ => bail!(CommandError::new(
            ErrorCode::ArgumentInvalid,
            format!(
                "--output {}: expected a file that ends in .html or .png",
                path.display()
            )
        )),
    }
}
