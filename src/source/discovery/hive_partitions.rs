//! Columns from the names of folders, as Hive, Spark and DuckDB write them:
//! `date=2026-11-01/part-0.parquet`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, new_null_array};
use arrow::compute::kernels::cast_utils::Parser as _;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Schema};
use percent_encoding::percent_decode_str;

use crate::source::discovery::input_file::InputFile;

/// The value of a folder that means null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that the folders of a source's files define.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HivePartitions {
    fields: Vec<FieldRef>,
}

impl HivePartitions {
    /// Finds the columns in the names of the files' folders, without those that the files
    /// themselves have. A column whose values are all integers or all dates has that type; the
    /// others are text.
    pub(crate) fn infer(files: &[InputFile], columns: &Schema) -> Self {
        let mut found: BTreeMap<String, DataType> = BTreeMap::new();
        let mut order = Vec::new();
        for file in files {
            for (key, value) in pairs(&file.name) {
                if columns.column_with_name(&key).is_some() {
                    continue;
                }
                let narrowest = value.as_deref().map_or(DataType::Null, type_of);
                match found.get_mut(&key) {
                    None => {
                        order.push(key.clone());
                        found.insert(key, narrowest);
                    }
                    Some(known) => *known = unified(known, &narrowest),
                }
            }
        }
        let fields = order.into_iter().filter_map(|key| {
            let data_type = match found.remove(&key)? {
                DataType::Null => DataType::Utf8,
                found => found,
            };
            Some(Arc::new(Field::new(key, data_type, true)))
        });
        Self {
            fields: fields.collect(),
        }
    }

    /// The columns, which follow those of the files.
    pub(crate) fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    /// Only the columns with these names.
    pub(crate) fn select(mut self, names: &[String]) -> Self {
        self.fields.retain(|field| names.contains(field.name()));
        self
    }

    /// The values of a file in `rows` rows.
    ///
    /// # Errors
    /// A sentence that names the folder if its value does not have the planned type.
    pub(in crate::source) fn values(
        &self,
        file: &str,
        rows: usize,
    ) -> Result<Vec<ArrayRef>, String> {
        if self.fields.is_empty() {
            return Ok(Vec::new());
        }
        let found = pairs(file);
        let column = |field: &FieldRef| {
            let value = found
                .iter()
                .find(|(key, _)| key == field.name())
                .and_then(|(_, value)| value.as_deref());
            let Some(value) = value else {
                return Ok(new_null_array(field.data_type(), rows));
            };
            let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                value, rows,
            )));
            let strict = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            cast_with_options(&text, field.data_type(), &strict).map_err(|_| {
                format!(
                    "the folder `{}={value}` is not a value of type {}, as those of the other \
                     files; rename the folder, or read it with a separate source",
                    field.name(),
                    field.data_type()
                )
            })
        };
        self.fields.iter().map(column).collect()
    }
}

/// The keys and values of the folders in a path, percent-decoded; the last value of a key counts.
fn pairs(path: &str) -> Vec<(String, Option<String>)> {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for folder in folders.split('/') {
        let Some((key, value)) = folder.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            continue;
        };
        let (key, value) = (decode(key), decode(value));
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, (value != NULL).then_some(value)));
    }
    pairs
}

/// The narrowest type of a value. A number is an integer only if its text is the usual notation, so
/// that codes such as `007` stay as they are.
fn type_of(value: &str) -> DataType {
    let is_integer = value
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == value);
    let is_date = || value.len() == "2026-11-01".len() && Date32Type::parse(value).is_some();
    if is_integer {
        DataType::Int64
    } else if is_date() {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}

fn unified(one: &DataType, other: &DataType) -> DataType {
    match (one, other) {
        (one, other) if one == other => one.clone(),
        (DataType::Null, found) | (found, DataType::Null) => found.clone(),
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::source::discovery::input_file;
    use arrow::array::{Array, AsArray};

    fn infer(paths: &[&str], columns: &Schema) -> HivePartitions {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let files = input_file::list("s", folder.path().to_str().unwrap(), &["csv"]).unwrap();
        HivePartitions::infer(&files, columns)
    }

    #[test]
    fn folders_give_typed_columns() {
        let paths = [
            "date=2026-11-01/site=7/code=007/a=b%20c/1.csv",
            "date=2026-11-02/site=__HIVE_DEFAULT_PARTITION__/code=8/a=1/2.csv",
            "other/3.csv",
        ];
        let own = Schema::new(vec![Field::new("a", DataType::Int8, false)]);
        let types = |partitions: &HivePartitions| -> Vec<(String, DataType)> {
            partitions
                .fields()
                .iter()
                .map(|field| (field.name().clone(), field.data_type().clone()))
                .collect()
        };
        let partitions = infer(&paths, &own);
        let expected = [
            ("date".to_owned(), DataType::Date32),
            ("site".to_owned(), DataType::Int64),
            ("code".to_owned(), DataType::Utf8),
        ];
        assert_eq!(types(&partitions), expected);
        let all = infer(&paths, &Schema::empty());
        let values = all.values(paths[0], 2).unwrap();
        assert_eq!(values[0].as_primitive::<Date32Type>().value(1), 20_758);
        assert_eq!(values[3].as_string::<i32>().value(0), "b c");
        let nulls = all.values(paths[1], 2).unwrap();
        assert_eq!((nulls[1].null_count(), nulls[0].len()), (2, 2));
        assert_eq!(all.values(paths[2], 1).unwrap()[2].null_count(), 1);
        assert_eq!(types(&all.select(&["site".to_owned()])).len(), 1);
    }

    #[test]
    fn folder_with_a_value_of_another_type_is_named() {
        let partitions = infer(&["day=1/a.csv"], &Schema::empty());
        let error = partitions.values("day=monday/b.csv", 3).unwrap_err();
        assert!(
            error.starts_with("the folder `day=monday` is not a value of type Int64"),
            "{error}"
        );
    }
}
