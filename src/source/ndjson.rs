//! The `ndjson` source reads one JSON object per line.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema_from_iterator;
use arrow::json::{ArrayDecoder, DecoderContext, DecoderFactory, ReaderBuilder, Tape, TapeElement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::RejectCode;
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::source::batch_limits::BatchLimits;
use crate::source::file_checkpoints::OnChange;
use crate::source::file_source::{
    BatchOutput, FileFormat, FileSource, ReadEnd, check_names, shorten,
};
use crate::source::input_file::{self, InputFile};
use crate::source::json_prescan::{LineClass, MAX_DEPTH};
use crate::source::schema_inference::first;
use crate::source::text::{
    ColumnType, Framer, LineAction, SAMPLE, TextBatches, TextFormat, read_all, too_long,
};
use crate::source::text_encoding::not_utf8;
use crate::source::{BatchSize, Source, SourceConfig};
use crate::storage::FileReader;

/// Reads records as JSON objects, one per line. Fields that are not columns are ignored; a column
/// that a record lacks is null.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct NdjsonSourceConfig {
    /// A file, a folder (all *.ndjson and *.jsonl files in it and in its subfolders) or a glob.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// Types by column, also of columns that the first records do not have.
    /// Default: inferred from the first 1,000 records of the first file.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub types: BTreeMap<String, ColumnType>,
    /// How to treat a file that has changed since an earlier run read it. If lines were appended,
    /// only these are read. After any other change, `new` reads the file as a new file and warns
    /// that the rows of its earlier version stay in the output; `refuse` ends `check` and `run`
    /// with an error that names the file. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

impl SourceConfig for NdjsonSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let record_bytes = context.limits.record_bytes.0;
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, NdjsonFormat::EXTENSIONS).map_err(path)?;
        let inferred = infer(&files, record_bytes).map_err(path)?;
        let schema = self.typed(&inferred);
        check_names(schema.fields().iter().map(|field| field.name()))
            .map_err(|what| vec![ConfigError::new("path", what)])?;
        self.types = ColumnType::all(&schema);
        let batch_limits = BatchLimits::features(batch);
        let format = NdjsonFormat {
            parser: NdjsonParser::new(schema.clone(), record_bytes),
            record_bytes,
            batch_limits,
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            self.on_change.into(),
        )))
    }
}

impl NdjsonSourceConfig {
    fn typed(&self, inferred: &Schema) -> SchemaRef {
        let given = |name: &String| self.types.get(name).map(|given| given.data_type());
        let known = inferred.fields().iter().map(|field| {
            let data_type = given(field.name()).unwrap_or_else(|| widen(field.data_type(), false));
            Field::new(field.name(), data_type, true)
        });
        let unseen = self
            .types
            .iter()
            .filter(|(name, _)| inferred.column_with_name(name).is_none());
        let unseen =
            unseen.map(|(name, column_type)| Field::new(name, column_type.data_type(), true));
        Arc::new(Schema::new(known.chain(unseen).collect::<Vec<_>>()))
    }
}

/// Widens an inferred type. Numbers in lists are features and become floats, since the sample may
/// hold integers only. A column without a value in the sample becomes text.
fn widen(inferred: &DataType, in_list: bool) -> DataType {
    match inferred {
        DataType::Null => DataType::Utf8,
        DataType::Int64 if in_list => DataType::Float64,
        DataType::List(item) => DataType::new_list(widen(item.data_type(), true), true),
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| Field::new(field.name(), widen(field.data_type(), in_list), true));
            DataType::Struct(fields.collect())
        }
        other => other.clone(),
    }
}

fn open<R: Read>(file: &InputFile, input: R, record_bytes: u64) -> Result<Framer<R>, ReadEnd> {
    let framer = Framer::new(input, None, record_bytes).map_err(file.stopped())?;
    match not_utf8(framer.start()) {
        Some(what) => Err(file.unfit(RejectCode::Unsupported, &what, 1)),
        None => Ok(framer),
    }
}

/// Infers the columns from the first file with an object among its first records.
fn infer(files: &[InputFile], record_bytes: u64) -> Result<Schema, StageError> {
    let any = NdjsonParser::new(Arc::new(Schema::empty()), record_bytes);
    first(files, |file, input| {
        let unfit = |what: String| file.unfit(RejectCode::Mismatch, &what, 1);
        let block = TextBatches::new(open(file, input, record_bytes)?, SAMPLE)
            .sample(&any)
            .map_err(file.stopped())?;
        let Some(block) = block else { return Ok(None) };
        let (mut left, mut has_large) = (SAMPLED_VALUES, false);
        let mut within = |text: &[u8]| match LineClass::classify(text) {
            LineClass::Object { values, keys } if values <= left && keys <= RECORD_KEYS => {
                left -= values;
                true
            }
            LineClass::Object { .. } => {
                has_large = true;
                false
            }
            _ => false,
        };
        let sampled = block
            .texts()
            .map(|(_, text)| text)
            .filter(|text| within(text));
        let (mut values, mut different) = (Vec::new(), HashSet::new());
        for value in sampled.filter_map(|text| serde_json::from_slice::<Value>(text).ok()) {
            if !value.is_object() || keys(&value) > MAX_COLUMNS {
                continue;
            }
            add_keys(&value, 0, &mut different);
            if different.len() > DIFFERENT_KEYS {
                return Err(unfit(too_wide(&format!("more than {DIFFERENT_KEYS}"))));
            }
            values.push(value);
        }
        if values.is_empty() && has_large {
            return Err(unfit(format!(
                "each of the first records has more than {RECORD_KEYS} keys or {SAMPLED_VALUES} \
                 values; write the required columns to a smaller file first"
            )));
        }
        if values.is_empty() {
            return Err(unfit(
                "does not begin with JSON objects; expected one per line, from which the columns \
                 are inferred"
                    .to_owned(),
            ));
        }
        let inferred = infer_from(values);
        let inferred = inferred
            .map_err(|error| unfit(format!("the types of the first records conflict: {error}")))?;
        match inferred.flattened_fields().len() {
            found if found > MAX_COLUMNS => Err(unfit(too_wide(&found.to_string()))),
            _ => Ok(Some(inferred)),
        }
    })
}

/// Maximum number of values in the sample from which types are inferred: each takes many times the
/// memory of its text.
const SAMPLED_VALUES: u64 = 1 << 20;

/// Maximum number of columns. Records with more keys are left out of the sample; wider tables store
/// their features in a list.
const MAX_COLUMNS: usize = 4096;

/// Maximum number of keys of a record in the sample: each takes many times the memory of its text.
/// A list of objects repeats its keys.
const RECORD_KEYS: u64 = 1 << 18;

/// Number of different keys in the sample above which the file is refused.
const DIFFERENT_KEYS: usize = 1 << 16;

fn too_wide(found: &str) -> String {
    format!(
        "the first records have {found} different keys; at most {MAX_COLUMNS} are supported; use \
         lists"
    )
}

/// Counts the keys of an object and of the objects in it: an upper bound on its columns. Of a list,
/// only the item with the most keys counts.
fn keys(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(|nested| 1 + keys(nested)).sum(),
        Value::Array(items) => items.iter().map(keys).max().unwrap_or(0),
        _ => 0,
    }
}

/// Adds the hash of each key together with the keys of the objects around it.
fn add_keys(value: &Value, under: u64, different: &mut HashSet<u64>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, nested)| {
            let mut hasher = DefaultHasher::new();
            (under, key).hash(&mut hasher);
            different.insert(hasher.finish());
            add_keys(nested, hasher.finish(), different);
        }),
        Value::Array(items) => items
            .iter()
            .for_each(|item| add_keys(item, under, different)),
        _ => {}
    }
}

/// Maximum number of sampled records whose types may conflict with those of the records before
/// them; such records are left out.
const MISFITS: usize = 10;

fn infer_from(mut values: Vec<Value>) -> Result<Schema, StageError> {
    let infer = |sample: &[Value]| infer_json_schema_from_iterator(sample.iter().map(Ok));
    for _ in 0..MISFITS {
        if let Ok(schema) = infer(&values) {
            return Ok(schema);
        }
        // A binary search finds the first record that conflicts with those before it.
        let (mut fit, mut misfit) = (0, values.len());
        while misfit - fit > 1 {
            let middle = fit.midpoint(misfit);
            *(if infer(&values[..middle]).is_ok() {
                &mut fit
            } else {
                &mut misfit
            }) = middle;
        }
        values.remove(fit);
    }
    infer(&values).map_err(|error| StageError::Other(shorten(&error.to_string())))
}

/// The format of planned NDJSON files.
struct NdjsonFormat {
    parser: NdjsonParser,
    record_bytes: u64,
    batch_limits: BatchLimits,
}

impl FileFormat for NdjsonFormat {
    const EXTENSIONS: &'static [&'static str] = &["ndjson", "jsonl"];
    const IS_TEXT: bool = true;

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        read_all(
            open(file, output.track(input), self.record_bytes)?,
            &self.parser,
            self.batch_limits,
            output,
        )
    }
}

/// The multiple of `limits.record_bytes` that a record may take in Arrow memory: in a list of wide
/// objects, the five bytes of `null,` become hundreds of bytes. The accounting of batches assumes
/// twice the stored bytes.
const EXPANSION: u64 = 2;

/// Parses objects into the planned columns.
pub(super) struct NdjsonParser {
    schema: SchemaRef,
    /// Number of values of one object of the schema, including nested ones.
    leaves: u64,
    /// Whether lists hold objects, so that each of their items may take as many values.
    has_object_lists: bool,
    record_bytes: u64,
}

impl NdjsonParser {
    pub(super) fn new(schema: SchemaRef, record_bytes: u64) -> Self {
        let leaves = schema.flattened_fields().len() as u64;
        let nests = |field: &&Field| match field.data_type() {
            DataType::List(item) => item.data_type().is_nested(),
            _ => false,
        };
        let has_object_lists = schema.flattened_fields().iter().any(nests);
        Self {
            schema,
            leaves,
            has_object_lists,
            record_bytes,
        }
    }

    /// Upper bound on the Arrow memory of a record in bytes: its text, and 8 bytes for each number,
    /// offset or missing value.
    fn weight(&self, record: &[u8], values: u64) -> u64 {
        let slots = if self.has_object_lists {
            values.saturating_mul(self.leaves)
        } else {
            values + self.leaves
        };
        (record.len() as u64).saturating_add(slots.saturating_mul(8))
    }
}

impl TextFormat for NdjsonParser {
    fn check(&self, record: &[u8]) -> LineAction {
        let malformed = |what: &str| LineAction::Refuse(RejectCode::Malformed, what.to_owned());
        match LineClass::classify(record) {
            LineClass::Blank => LineAction::Skip,
            LineClass::Object { values, .. } => match self.weight(record, values) {
                weight if weight > self.record_bytes.saturating_mul(EXPANSION) => {
                    too_long(self.record_bytes)
                }
                weight => LineAction::Parse(weight),
            },
            LineClass::Incomplete => {
                malformed("the line ends inside an object, a list or a string")
            }
            LineClass::Trailing => {
                malformed("the line continues after the object; expected one object per line")
            }
            LineClass::NotAnObject => malformed("the line is not a JSON object"),
            LineClass::TooDeep => malformed(&format!(
                "values are nested more than {MAX_DEPTH} levels deep"
            )),
        }
    }

    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, String> {
        let builder = ReaderBuilder::new(self.schema.clone()).with_batch_size(count + 1);
        let decoded = || -> Result<Option<RecordBatch>, ArrowError> {
            let mut decoder = builder
                .with_decoder_factory(Arc::new(IntegerDecoder))
                .build_decoder()?;
            decoder.decode(text)?;
            decoder.flush()
        }();
        let message = |error: ArrowError| {
            error
                .to_string()
                .trim_start_matches("Json error: ")
                .to_owned()
        };
        decoded
            .map_err(message)?
            .ok_or_else(|| "the parser found no record".to_owned())
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// Decodes columns of integers. Arrow's own decoder truncates `1.5` to 1; this one returns an
/// error.
#[derive(Debug)]
struct IntegerDecoder;

impl DecoderFactory for IntegerDecoder {
    fn make_default_decoder(
        &self,
        _: &DecoderContext,
        field: &FieldRef,
        _: bool,
    ) -> Result<Option<Box<dyn ArrayDecoder>>, ArrowError> {
        let is_integer = *field.data_type() == DataType::Int64;
        Ok(is_integer.then(|| Box::new(Self) as Box<dyn ArrayDecoder>))
    }
}

impl ArrayDecoder for IntegerDecoder {
    fn decode(&mut self, tape: &Tape<'_>, indices: &[u32]) -> Result<ArrayRef, ArrowError> {
        let value = |&index: &u32| match tape.get(index) {
            TapeElement::Null => Ok(None),
            TapeElement::Number(text) | TapeElement::String(text) => {
                let text = tape.get_string(text);
                parse_integer(text)
                    .map(Some)
                    .ok_or_else(|| ArrowError::JsonError(format!("{text} is not a 64-bit integer")))
            }
            _ => Err(tape.error(index, "an integer")),
        };
        Ok(Arc::new(
            indices
                .iter()
                .map(value)
                .collect::<Result<Int64Array, _>>()?,
        ))
    }
}

/// Parses an integer in any notation (`3`, `3.0`, `3e2`); `None` if a digit would be lost.
fn parse_integer(text: &str) -> Option<i64> {
    // Beyond 2^53, a float does not represent every integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    text.parse().ok().or_else(|| {
        let value: f64 = text.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "an integer within 2^53")]
        (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};
    use serde_json::json;

    use super::*;
    use crate::source::file_source::testing::{drain, plan, progress_of, read, records, rejects};

    fn file(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.ndjson"), text).unwrap();
        folder
    }

    fn many(count: usize, bad: &[(usize, &str)]) -> String {
        let line = |row: usize| match bad.iter().find(|(index, _)| *index == row) {
            Some((_, text)) => format!("{text}\n"),
            None => format!("{{\"id\": {row}, \"v\": [{row}, 0.5]}}\n"),
        };
        (0..count).map(line).collect()
    }

    #[test]
    fn objects_become_rows_with_inferred_types() {
        let text = "\u{feff}{\"a\": 1, \"v\": [1, 2], \"s\": \"x\", \"o\": {\"k\": true}, \
                    \"n\": null}\r\n \n{\"v\": [0.5], \"a\": 3.0, \"extra\": []}";
        let folder = file(text);
        let more = json!({ "path": folder.path(), "types": { "late": "bool" } });
        let all = records(&read::<NdjsonSourceConfig>(more, 10));
        let types: Vec<_> = all
            .schema()
            .fields()
            .iter()
            .map(|f| format!("{} {}", f.name(), f.data_type()))
            .collect();
        assert!(types.contains(&"a Float64".to_owned()), "{types:?}");
        assert!(types.contains(&"n Utf8".to_owned()), "{types:?}");
        assert!(types.contains(&"late Boolean".to_owned()), "{types:?}");
        assert_eq!(
            all["v"]
                .as_list::<i32>()
                .values()
                .as_primitive::<Float64Type>()
                .values(),
            &[1.0, 2.0, 0.5]
        );
        assert_eq!(
            all["s"].as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("x"), None]
        );
        assert!(all["o"].as_struct().column(0).as_boolean().value(0));
    }

    #[test]
    fn one_bad_record_among_10_000_is_one_reject() {
        let folder = file(&many(10_000, &[(7_123, "{\"id\": 1.5}")]));
        let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 4096);
        assert_eq!(
            rejects(&batches),
            [(7123, "malformed", Some("{\"id\": 1.5}".to_owned()))]
        );
        assert_eq!(
            batches[1].rejects[0].reason,
            "whilst decoding field 'id': 1.5 is not a 64-bit integer"
        );
        let ids = records(&batches);
        let ids = ids["id"].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(
            ids,
            (0..10_000).filter(|&row| row != 7_123).collect::<Vec<_>>()
        );
    }

    #[test]
    fn lines_other_than_objects_of_the_columns_are_rejects() {
        let deep = format!("{{\"v\": {}1{}}}", "[".repeat(200), "]".repeat(200));
        let long = format!("{{\"id\": \"{}\"}}", "x".repeat(2 << 20));
        let bad = [
            (1, "[1, 2]"),
            (2, "{\"id\": 1"),
            (3, "1}"),
            (4, "{\"id\": 1} {\"id\": 2}"),
            (5, "{\"id\": tru}"),
            (6, "{\"id\": {}}"),
            (7, "{\"v\": 3}"),
            (8, &deep),
            (9, &long),
            (10, "{\"id\": [1}]"),
            (11, "{\"id\" 3}"),
        ];
        let folder = file(&many(20, &bad));
        let batches = read::<NdjsonSourceConfig>(
            json!({ "path": folder.path(), "types": { "id": "int" } }),
            8,
        );
        let found = rejects(&batches);
        assert_eq!(
            found.iter().map(|reject| reject.0).collect::<Vec<_>>(),
            (1..12).collect::<Vec<_>>()
        );
        let codes: Vec<_> = found
            .iter()
            .filter(|reject| reject.1 != "malformed")
            .map(|reject| reject.1)
            .collect();
        assert_eq!(codes, ["too_large"]);
        assert_eq!(found[0].2.as_deref(), Some("[1, 2]"));
        assert_eq!(records(&batches).num_rows(), 9);
    }

    #[test]
    fn wide_records_are_left_out_and_wide_tables_refused() {
        let keys = |from: usize, to: usize| {
            (from..to)
                .map(|n| format!("\"k{n}\": {n}"))
                .collect::<Vec<_>>()
                .join(",")
        };
        let wide = file(&format!("{{\"k0\": 1}}\n{{{}}}\n", keys(0, 5000)));
        let batches = read::<NdjsonSourceConfig>(json!({ "path": wide.path() }), 10);
        assert_eq!(
            records(&batches)["k0"].as_primitive::<Int64Type>().values(),
            &[1, 0]
        );
        let refusal = |rows: usize, width: usize| {
            let table: String = (0..rows)
                .map(|n| format!("{{{}}}\n", keys(n * width, n * width + width)))
                .collect();
            let folder = file(&table);
            let faults = plan::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10)
                .err()
                .unwrap();
            faults[0].message.clone()
        };
        assert_eq!(
            refusal(6, 1000),
            "no file can be read; a.ndjson: the first records have 6000 different keys; at most \
             4096 are supported; use lists"
        );
        assert_eq!(
            refusal(30, 4000),
            "no file can be read; a.ndjson: the first records have more than 65536 different keys; \
             at most 4096 are supported; use lists"
        );
    }

    #[test]
    fn long_list_of_objects_is_inferred_up_to_its_key_limit() {
        let infer = |objects: usize| {
            let list = vec!["{\"x\":1,\"y\":2}"; objects].join(",");
            let folder = file(&format!("{{\"a\": [{list}]}}\n"));
            let files = input_file::list(
                "in",
                &folder.path().to_string_lossy(),
                NdjsonFormat::EXTENSIONS,
            )
            .unwrap();
            infer(&files, 1 << 24)
        };
        assert_eq!(infer(50_000).unwrap().field(0).name(), "a");
        let error = infer(140_000).unwrap_err().to_string();
        assert!(error.contains("more than 262144 keys"), "{error}");
    }

    #[test]
    fn invalid_utf8_is_a_reject() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("a.jsonl"),
            b"{\"s\": \"a\"}\n{\"s\": \"\xff\"}\n{\"s\": \"b\"}",
        )
        .unwrap();
        let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
        assert_eq!(
            rejects(&batches),
            [(1, "malformed", Some("{\"s\": \"\u{fffd}\"}".to_owned()))]
        );
        assert_eq!(records(&batches).num_rows(), 2);
    }

    #[test]
    fn later_run_reads_only_uncommitted_batches() {
        let folder = file(&many(25, &[]));
        let all = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
        let source = plan::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10).unwrap();
        let rest = drain(source, &progress_of(&all[..1])).unwrap();
        assert_eq!(rest.len(), 2);
        assert_eq!(rest[1].batch.records, all[2].batch.records);
    }

    #[test]
    fn small_record_that_expands_in_memory_is_a_reject() {
        let wide: Vec<String> = (0..500).map(|index| format!("\"c{index}\": 1")).collect();
        let nulls = vec!["null"; 10_000].join(",");
        let folder = file(&format!(
            "{{\"o\": [{{{}}}]}}\n{{\"o\": [{nulls}]}}\n",
            wide.join(",")
        ));
        let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
        assert_eq!(
            rejects(&batches)
                .iter()
                .map(|reject| (reject.0, reject.1))
                .collect::<Vec<_>>(),
            [(1, "too_large")]
        );
    }

    #[test]
    fn file_without_objects_is_a_fault() {
        let folder = file("hello\n[1]\n");
        let faults = plan::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10)
            .err()
            .unwrap();
        assert!(
            faults[0]
                .message
                .contains("a.ndjson: does not begin with JSON objects; expected one per line"),
            "{faults:?}"
        );
    }

    #[test]
    fn few_conflicting_records_are_rejects_and_many_a_fault() {
        let folder = file("{\"a\": 1}\n{\"a\": {\"b\": 1}}\n{\"a\": 2}\n");
        let batches = read::<NdjsonSourceConfig>(json!({ "path": folder.path() }), 10);
        assert_eq!(
            rejects(&batches),
            [(1, "malformed", Some("{\"a\": {\"b\": 1}}".to_owned()))]
        );
        let conflicting = file(&"{\"a\": 1}\n{\"a\": {\"b\": 1}}\n".repeat(20));
        let faults = plan::<NdjsonSourceConfig>(json!({ "path": conflicting.path() }), 10)
            .err()
            .unwrap();
        assert!(
            faults[0]
                .message
                .contains("the types of the first records conflict: "),
            "{faults:?}"
        );
    }
}
