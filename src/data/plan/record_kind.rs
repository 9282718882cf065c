//! The kind of the records of a dataset, and the values of a record.

use arrow::datatypes::{DataType, Field, Schema};

use crate::columns::{IMAGE, ROW, SOURCE};
use crate::data::config::DataSpec;
use crate::error::config_error::ConfigError;
use crate::image::prepared::Sizing;
use crate::image::{DecodeOptions, ResizeMode, ValueRange};
use crate::model::input::rules::index::RuleIndex;
use crate::model::input::rules::{FeatureRule, RawType};
use crate::model::input::spec::{InputKind, InputSpec};
use crate::registry::did_you_mean;
use crate::transform::with_matching_columns;

/// The form in which records are stored.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) enum RecordKind {
    Images {
        options: DecodeOptions,
        sizing: Sizing,
    },
    Features {
        columns: Vec<String>,
        rules: Vec<FeatureRule>,
    },
}

impl RecordKind {
    /// Returns the kind that the input declares, or else the kind of the first source; `None` if
    /// neither of them is known.
    pub(super) fn new(
        spec: &DataSpec,
        input: &InputSpec,
        schema: Option<&Schema>,
    ) -> Result<Option<Self>, Vec<ConfigError>> {
        let declared = input
            .declared_kind()
            .map_err(|fault| vec![fault.within("input")])?;
        let kind = declared.or_else(|| schema.map(inferred_kind));
        match (kind, schema) {
            (Some(InputKind::Image), _) => Self::images(spec, input).map(Some),
            (Some(InputKind::Features), Some(schema)) => {
                Self::features(spec, input, schema).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn images(spec: &DataSpec, input: &InputSpec) -> Result<Self, Vec<ConfigError>> {
        let max_pixels = spec.limits.pixels;
        let mut faults = Vec::new();
        match input.size {
            Some([height, width]) if height == 0 || width == 0 => {
                faults.push(ConfigError::new(
                    "input.size",
                    "height and width must be above 0",
                ));
            }
            Some([height, width]) if (height as u64).saturating_mul(width as u64) > max_pixels => {
                let message = format!(
                    "{height} x {width} pixels exceed the limit of {max_pixels} pixels per image"
                );
                faults.push(ConfigError::new("input.size", message));
            }
            _ => {}
        }
        if !spec.without.is_empty() {
            faults.push(ConfigError::new(
                "without",
                "applies to columns of features, but the input is images; remove the option",
            ));
        }
        let value_range = spec.value_range.map(ValueRange::new).transpose();
        if let Err(error) = &value_range {
            faults.push(ConfigError::new("value_range", error.to_string()));
        }
        let sizing = match (input.preprocessor(), input.size) {
            (Ok(Some(steps)), _) => Sizing::Steps(steps),
            (Ok(None), Some([height, width])) => Sizing::Resize {
                size: (height, width),
                fit: ResizeMode::default(),
                decode: input.decode.unwrap_or_default(),
            },
            (Ok(None), None) => Sizing::Original,
            (Err(fault), _) => {
                faults.push(fault.within("input"));
                return Err(faults);
            }
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self::Images {
            options: DecodeOptions {
                channels: input.channels.unwrap_or_default(),
                max_pixels,
                value_range: value_range.ok().flatten(),
            },
            sizing,
        })
    }

    pub(super) fn features(
        spec: &DataSpec,
        input: &InputSpec,
        schema: &Schema,
    ) -> Result<Self, Vec<ConfigError>> {
        if spec.value_range.is_some() {
            let message = "applies to images, but the input is features; remove the option";
            return Err(vec![ConfigError::new("value_range", message)]);
        }
        if let Some(columns) = &input.columns {
            let message = "cannot be combined with `input.columns`; remove one of the two options";
            if !spec.without.is_empty() {
                return Err(vec![ConfigError::new("without", message)]);
            }
            return Ok(Self::Features {
                columns: with_matching_columns(columns, schema, "input.columns")?,
                rules: input.rules.clone(),
            });
        }
        let missing = spec
            .without
            .iter()
            .filter_map(|name| find(schema, "without", name).err());
        let mut faults: Vec<ConfigError> = missing.collect();
        let others = [
            spec.label.as_deref(),
            spec.normal.as_ref().map(|normal| normal.column.as_str()),
        ];
        let others: Vec<&str> = others.into_iter().flatten().chain([SOURCE, ROW]).collect();
        let is_feature = |name: &str| {
            !others.contains(&name) && spec.without.iter().all(|without| without != name)
        };
        // A rule makes columns of other types features.
        let rules = RuleIndex::new(&input.rules);
        let has_values = |field: &Field| match rules.column_rule(field.name()) {
            Some(rule) => rule.raw().kind != RawType::Number || is_number(field.data_type()),
            None => is_number(field.data_type()),
        };
        let fields = schema
            .fields()
            .iter()
            .filter(|field| is_feature(field.name()) && has_values(field));
        let columns: Vec<String> = fields.map(|field| field.name().clone()).collect();
        if columns.is_empty() {
            let message = format!(
                "no numeric column is left to use as a feature; the source has: {}",
                names(schema).join(", ")
            );
            faults.push(ConfigError::new("sources", message));
        }
        if faults.is_empty() {
            Ok(Self::Features {
                columns,
                rules: input.rules.clone(),
            })
        } else {
            Err(faults)
        }
    }
}

/// Infers the kind of the records from the columns of a source.
fn inferred_kind(schema: &Schema) -> InputKind {
    let image = schema
        .column_with_name(IMAGE)
        .filter(|(_, field)| is_bytes(field.data_type()));
    if image.is_some() {
        InputKind::Image
    } else {
        InputKind::Features
    }
}

pub(super) fn is_bytes(column: &DataType) -> bool {
    matches!(column, DataType::Binary | DataType::LargeBinary)
}

/// Whether a column gives a fixed number of values.
fn is_number(column: &DataType) -> bool {
    match column {
        DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric() || item.data_type() == &DataType::Boolean
        }
        plain => plain.is_numeric() || plain == &DataType::Boolean,
    }
}

pub(super) fn names(schema: &Schema) -> Vec<&str> {
    schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect()
}

pub(super) fn find(schema: &Schema, key: &str, name: &str) -> Result<usize, ConfigError> {
    schema.index_of(name).map_err(|_| {
        let known = names(schema);
        let hint = did_you_mean(name, &known);
        ConfigError::new(
            key,
            format!(
                "no column `{name}`{hint}; the source has: {}",
                known.join(", ")
            ),
        )
    })
}
