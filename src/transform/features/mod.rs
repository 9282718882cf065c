//! The transform `features`: scales numeric columns and combines them into one vector column.

pub(crate) mod columns;
pub(crate) mod config;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::clamp_warning::ClampWarning;
use super::feature_column::{BLOCK, FeatureColumn};
use super::raw_vectors::{not_finite, raw_vectors, unacceptable};
use super::rows::{RejectedRows, append};
use super::{Transform, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::input::rules::encoder::FeatureEncoder;
use crate::model::input::rules::index::RuleIndex;
use crate::model::{FeatureInput, FeatureScale, Scaling};
use crate::tensor::{all_finite, fixed_column, fixed_values, vector_field};
use crate::transform::features::columns::{element_names, resolve};
use crate::transform::features::config::FeaturesConfig;

#[derive(Clone)]
struct FeaturesTransform {
    columns: Vec<FeatureColumn>,
    /// The number of values of the columns.
    raw_width: usize,
    /// The number of values of the vector.
    width: usize,
    scaling: Scaling,
    encoder: Option<Arc<FeatureEncoder>>,
    /// The indices of the columns that are kept.
    kept: Vec<usize>,
    schema: SchemaRef,
    /// Set if values outside of 0..1 are reported, because the model clamps them.
    clamped: Option<ClampWarning>,
}

impl FeaturesTransform {
    fn new(
        config: &FeaturesConfig,
        input: &Schema,
        selected: FeatureInput,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let key = if selected.columns == config.columns {
            "columns"
        } else {
            "model"
        };
        if selected.columns.is_empty() {
            faults.push(ConfigError::new(
                key,
                "no column is selected; list the numeric columns of the vector",
            ));
            return None;
        }
        let width = config.width.or_else(|| scaled_values(&selected.scaling));
        let rules = RuleIndex::new(&config.rules);
        let raw = |name: &str| match config.rules.is_empty() {
            true => selected.raw(name),
            false => rules.raw(name),
        };
        let columns = resolve(input, key, (&selected.columns, &raw), width, faults)?;
        let encoder = match config.rules.is_empty() {
            true => selected.encoder,
            false => Some(Arc::new(faults.record_all(encoder(config, &columns))?)),
        };
        let found: usize = columns.iter().map(|column| column.len).sum();
        if let Some(declared) = config.width.filter(|&declared| declared != found) {
            faults.push(ConfigError::new(
                "width",
                format!("is {declared}, but the number of values in the columns is {found}"),
            ));
        }
        if let Some(scaled) = scaled_values(&selected.scaling).filter(|&scaled| scaled != found) {
            faults.push(ConfigError::new(
                key,
                format!(
                    "the number of values in the columns is {found}, but that of the scaling is \
                     {scaled}"
                ),
            ));
        }
        let used = |index: &usize| columns.iter().any(|column| column.index == *index);
        let kept: Vec<usize> = (0..input.fields().len())
            .filter(|index| config.keep || !used(index))
            .collect();
        let stays = Schema::new(
            kept.iter()
                .map(|&index| input.field(index).clone())
                .collect::<Vec<Field>>(),
        );
        let inputs = encoder
            .as_ref()
            .map_or(found, |encoder| encoder.groups().inputs());
        let schema = faults.record(append(&stays, "to", vector_field(&config.to, inputs)))?;
        Some(Self {
            columns,
            raw_width: found,
            width: inputs,
            encoder,
            scaling: selected.scaling,
            kept,
            schema,
            clamped: None,
        })
    }
}

/// The encoder of the rules of the options, for the values of these columns.
fn encoder(
    config: &FeaturesConfig,
    columns: &[FeatureColumn],
) -> Result<FeatureEncoder, Vec<ConfigError>> {
    let names = columns.iter().flat_map(|column| match column.list {
        true => element_names(&column.name, column.len).collect(),
        false => vec![column.name.clone()],
    });
    FeatureEncoder::new(&names.collect::<Vec<_>>(), &config.rules)
}

/// The number of values of a scaling; `None` without scaling.
fn scaled_values(scaling: &Scaling) -> Option<usize> {
    match scaling {
        Scaling::None => None,
        Scaling::Standard { mean: values, .. } | Scaling::MinMax { min: values, .. } => {
            Some(values.len())
        }
    }
}

impl TransformPlan for FeaturesTransform {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }

    fn summary(&self) -> String {
        if self.encoder.is_some() {
            return format!(
                "{} values of {} columns, which become {} inputs by rules",
                self.raw_width,
                self.columns.len(),
                self.width
            );
        }
        let scaling = match self.scaling {
            Scaling::None => "not scaled",
            Scaling::Standard { .. } => "standardized",
            Scaling::MinMax { .. } => "scaled to 0..1",
        };
        format!(
            "{} values of {} columns, {scaling}",
            self.width,
            self.columns.len()
        )
    }
}

impl Transform for FeaturesTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let mut incomplete = RejectedRows::default();
        for column in &self.columns {
            column.check(batch.records.column(column.index), &mut incomplete);
        }
        let mut batch = incomplete.remove_from(batch, rejects)?;
        let vectors = match (&self.encoder, self.reused_column(&batch.records)) {
            (Some(encoder), _) => {
                let (accepted, inputs) = self.encoded(encoder, batch, rejects)?;
                batch = accepted;
                fixed_column(self.width, inputs)?
            }
            (None, Some(vectors)) => vectors,
            (None, None) => fixed_column(self.width, self.gather(&batch.records)?)?,
        };
        let values = fixed_values(&vectors).unwrap_or_default();
        let infinite = if all_finite(values) {
            RejectedRows::default()
        } else {
            self.non_finite(values)
        };
        if let Some(clamped) = &self.clamped {
            clamped.check(values, self.width);
        }
        let columns = self
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)))
            .chain([vectors]);
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?;
        infinite.remove_from(batch.with_records(records), rejects)
    }
}

impl FeaturesTransform {
    /// Returns a column that already equals the vector, without a copy of its values; `None` if
    /// there is no such column.
    fn reused_column(&self, records: &RecordBatch) -> Option<ArrayRef> {
        let ([only], Scaling::None, None) = (self.columns.as_slice(), &self.scaling, &self.encoder)
        else {
            return None;
        };
        let list = records.column(only.index).as_fixed_size_list_opt()?;
        let DataType::FixedSizeList(item, len) = self.schema.fields().last()?.data_type() else {
            return None;
        };
        if list.value_type() != DataType::Float32 || list.values().null_count() > 0 {
            return None;
        }
        let vectors =
            FixedSizeListArray::try_new(Arc::clone(item), *len, Arc::clone(list.values()), None)
                .ok()?;
        Some(Arc::new(vectors))
    }

    /// Computes the vectors, row by row, from columns without nulls.
    fn gather(&self, records: &RecordBatch) -> Result<Vec<f32>, StageError> {
        let scales: Vec<FeatureScale> = (0..self.width)
            .map(|index| self.scaling.feature(index))
            .collect();
        let values = self
            .columns
            .iter()
            .map(|column| column.values(records.column(column.index)));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        if let ([only], [values]) = (self.columns.as_slice(), values.as_slice()) {
            return Ok(only.scaled(values, &scales));
        }
        let mut vectors = vec![0.0; records.num_rows() * self.width];
        for (block, block_vectors) in vectors.chunks_mut(BLOCK * self.width).enumerate() {
            for (column, column_values) in self.columns.iter().zip(&values) {
                let column_scales = &scales[column.start..column.start + column.len];
                column.write(
                    column_values,
                    column_scales,
                    block * BLOCK,
                    self.width,
                    block_vectors,
                );
            }
        }
        Ok(vectors)
    }

    /// Rejects the rows that the rules refuse, and computes the inputs of the others.
    fn encoded(
        &self,
        encoder: &FeatureEncoder,
        batch: Batch,
        rejects: &mut RejectCollector,
    ) -> Result<(Batch, Vec<f32>), StageError> {
        let raw = raw_vectors(&self.columns, self.raw_width, &batch.records, |value| value)?;
        let refused = unacceptable(&self.columns, self.raw_width, &raw);
        let mut inputs = Vec::with_capacity(batch.records.num_rows() * self.width);
        for (row, values) in raw.chunks_exact(self.raw_width).enumerate() {
            if !refused.contains(row) {
                encoder.encode(values.iter().copied(), &mut inputs);
            }
        }
        Ok((refused.remove_from(batch, rejects)?, inputs))
    }

    /// Rejects the vectors that contain NaN or infinity, and names the column of the value.
    fn non_finite(&self, vectors: &[f32]) -> RejectedRows {
        let mut rejected = RejectedRows::default();
        for (row, vector) in vectors.chunks_exact(self.width).enumerate() {
            let Some(index) = vector.iter().position(|value| !value.is_finite()) else {
                continue;
            };
            let value = match &self.encoder {
                Some(encoder) => encoder.groups().feature_of(index),
                None => index,
            };
            let column = self.columns.iter().rfind(|column| column.start <= value);
            let name = column.map_or("", |column| column.name.as_str());
            rejected.add(row, not_finite(name, index, f64::from(vector[index])));
        }
        rejected
    }
}

#[cfg(test)]
mod tests;
