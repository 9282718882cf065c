//! Random columns of every Arrow type.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, FixedSizeListArray, Float64Array, Int8Array, Int64Array, ListArray,
    MapArray, NullArray, StringArray, StructArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NAME: &str = "ARROW:extension:name";
const METADATA: &str = "ARROW:extension:metadata";

/// The columns of a table. All tables have the same columns, with other values.
pub fn random_columns(seed: u64, rows: usize) -> Vec<(Field, ArrayRef)> {
    let mut random = RandomArrays(ChaCha8Rng::seed_from_u64(seed));
    let mut columns: Vec<(Field, ArrayRef)> = all_types()
        .into_iter()
        .map(|(name, data_type)| {
            let column = random.array(&data_type, rows);
            (Field::new(name, data_type, true), column)
        })
        .collect();
    columns.extend(random.narrow_dictionaries(seed, rows));
    columns.extend(random.extensions(rows));
    columns
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(data_type, true))
}

fn dictionary(key: DataType, value: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(value))
}

fn runs(ends: DataType, values: DataType) -> DataType {
    let ends = Field::new("run_ends", ends, false);
    DataType::RunEndEncoded(Arc::new(ends), Arc::new(Field::new("values", values, true)))
}

fn structure(children: Vec<(&str, DataType)>) -> DataType {
    let fields = children
        .into_iter()
        .map(|(name, data_type)| Field::new(name, data_type, true));
    DataType::Struct(fields.collect())
}

fn map(value: DataType) -> DataType {
    let fields = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", value, true),
    ]);
    let entries = Field::new("entries", DataType::Struct(fields), false);
    DataType::Map(Arc::new(entries), false)
}

fn all_types() -> Vec<(String, DataType)> {
    let mut types = plain_types();
    types.extend(encoded_types());
    types.extend(nested_types());
    let named = types.into_iter();
    named
        .map(|(name, data_type)| (name.to_owned(), data_type))
        .collect()
}

fn plain_types() -> Vec<(&'static str, DataType)> {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256,
        Duration, FixedSizeBinary, Float16, Float32, Float64, Int8, Int16, Int32, Int64,
        LargeBinary, LargeUtf8, Null, Time32, Time64, Timestamp, UInt8, UInt16, UInt32, UInt64,
        Utf8, Utf8View,
    };
    let berlin = || Some("Europe/Berlin".into());
    vec![
        ("null", Null),
        ("boolean", Boolean),
        ("int8", Int8),
        ("int16", Int16),
        ("int32", Int32),
        ("int64", Int64),
        ("uint8", UInt8),
        ("uint16", UInt16),
        ("uint32", UInt32),
        ("uint64", UInt64),
        ("float16", Float16),
        ("float32", Float32),
        ("float64", Float64),
        ("date32", Date32),
        ("date64", Date64),
        ("time_s", Time32(TimeUnit::Second)),
        ("time_ms", Time32(TimeUnit::Millisecond)),
        ("time_us", Time64(TimeUnit::Microsecond)),
        ("time_ns", Time64(TimeUnit::Nanosecond)),
        ("timestamp_s", Timestamp(TimeUnit::Second, None)),
        ("timestamp_ms", Timestamp(TimeUnit::Millisecond, None)),
        ("timestamp_us", Timestamp(TimeUnit::Microsecond, None)),
        ("timestamp_ns", Timestamp(TimeUnit::Nanosecond, None)),
        ("instant_s", Timestamp(TimeUnit::Second, berlin())),
        ("instant_ms", Timestamp(TimeUnit::Millisecond, berlin())),
        (
            "instant_us",
            Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
        (
            "instant_ns",
            Timestamp(TimeUnit::Nanosecond, Some("+02:00".into())),
        ),
        ("duration_s", Duration(TimeUnit::Second)),
        ("duration_ms", Duration(TimeUnit::Millisecond)),
        ("duration_us", Duration(TimeUnit::Microsecond)),
        ("duration_ns", Duration(TimeUnit::Nanosecond)),
        ("decimal32", Decimal32(9, 2)),
        ("decimal64", Decimal64(18, 3)),
        ("decimal128", Decimal128(38, 10)),
        ("decimal128_narrow", Decimal128(5, 2)),
        ("decimal256", Decimal256(38, 10)),
        ("utf8", Utf8),
        ("large_utf8", LargeUtf8),
        ("utf8_view", Utf8View),
        ("binary", Binary),
        ("large_binary", LargeBinary),
        ("binary_view", BinaryView),
        ("fixed_size_binary", FixedSizeBinary(5)),
    ]
}

fn encoded_types() -> Vec<(&'static str, DataType)> {
    use DataType::{
        Binary, Date32, Decimal128, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Timestamp,
        UInt8, UInt16, UInt32, UInt64, Utf8, Utf8View,
    };
    vec![
        ("dictionary_int8", dictionary(Int8, Utf8)),
        ("dictionary_uint8", dictionary(UInt8, LargeUtf8)),
        ("dictionary_int16", dictionary(Int16, Utf8View)),
        ("dictionary_uint16", dictionary(UInt16, Binary)),
        ("dictionary_int32", dictionary(Int32, Int64)),
        ("dictionary_uint32", dictionary(UInt32, Float64)),
        ("dictionary_int64", dictionary(Int64, Date32)),
        ("dictionary_uint64", dictionary(UInt64, Decimal128(9, 2))),
        (
            "dictionary_seconds",
            dictionary(Int8, Timestamp(TimeUnit::Second, None)),
        ),
        ("runs_int16", runs(Int16, Utf8)),
        ("runs_int32", runs(Int32, Float64)),
        ("runs_int64", runs(Int64, Timestamp(TimeUnit::Second, None))),
    ]
}

fn nested_types() -> Vec<(&'static str, DataType)> {
    use DataType::{
        Date64, Decimal128, FixedSizeList, Float32, Int8, Int32, Int64, LargeList, LargeListView,
        List, ListView, Null, Time32, Timestamp, Utf8, Utf8View,
    };
    let words = || dictionary(Int8, Utf8);
    vec![
        ("list", List(item(Int64))),
        ("large_list", LargeList(item(Utf8))),
        ("list_view", ListView(item(Int32))),
        ("large_list_view", LargeListView(item(Utf8))),
        ("vector", FixedSizeList(item(Float32), 3)),
        ("empty_vector", FixedSizeList(item(Float32), 0)),
        ("structure", structure(vec![("a", Int32), ("b", Utf8)])),
        ("map", map(Int64)),
        ("list_of_null", List(item(Null))),
        ("list_of_words", List(item(words()))),
        ("list_of_views", List(item(ListView(item(Utf8View))))),
        (
            "list_of_structures",
            List(item(structure(vec![("t", Time32(TimeUnit::Second))]))),
        ),
        (
            "vector_of_seconds",
            FixedSizeList(item(Timestamp(TimeUnit::Second, None)), 2),
        ),
        (
            "structure_of_all",
            structure(vec![
                ("w", words()),
                ("l", LargeListView(item(Date64))),
                ("s", structure(vec![("n", Null), ("d", Decimal128(20, 4))])),
            ]),
        ),
        ("map_of_words", map(words())),
    ]
}

struct RandomArrays(ChaCha8Rng);

impl RandomArrays {
    /// A quarter of the values are null.
    fn is_null(&mut self) -> bool {
        self.0.random_ratio(1, 4)
    }

    fn nulls(&mut self, rows: usize) -> NullBuffer {
        (0..rows).map(|_| !self.is_null()).collect()
    }

    fn integers(&mut self, rows: usize, least: i64, most: i64) -> ArrayRef {
        let values = (0..rows)
            .map(|_| (!self.is_null()).then(|| self.0.random_range(least..=most)))
            .collect::<Vec<_>>();
        Arc::new(Int64Array::from(values))
    }

    fn words(&mut self, rows: usize) -> ArrayRef {
        let word = |number: u8| match number {
            0 => String::new(),
            1 => "日本語 — a text of more than twelve bytes".to_owned(),
            number => format!("w{number}"),
        };
        let words = (0..rows)
            .map(|_| (!self.is_null()).then(|| word(self.0.random_range(0..20))))
            .collect::<Vec<_>>();
        Arc::new(StringArray::from(words))
    }

    fn lengths(&mut self, rows: usize) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths((0..rows).map(|_| self.0.random_range(0..4)))
    }

    fn array(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        // Every year that pandas, Polars and DuckDB accept in each unit.
        const SECONDS: i64 = 4_000_000_000;
        let to = |values: ArrayRef| cast(&values, data_type).unwrap();
        match data_type {
            DataType::Null => Arc::new(NullArray::new(rows)),
            DataType::Boolean => {
                let values = (0..rows)
                    .map(|_| (!self.is_null()).then(|| self.0.random()))
                    .collect::<Vec<Option<bool>>>();
                Arc::new(BooleanArray::from(values))
            }
            DataType::Int8 => to(self.integers(rows, i8::MIN.into(), i8::MAX.into())),
            DataType::Int16 => to(self.integers(rows, i16::MIN.into(), i16::MAX.into())),
            DataType::Int32 => to(self.integers(rows, i32::MIN.into(), i32::MAX.into())),
            DataType::Int64 => self.integers(rows, -(1 << 53), 1 << 53),
            DataType::UInt8 => to(self.integers(rows, 0, u8::MAX.into())),
            DataType::UInt16 => to(self.integers(rows, 0, u16::MAX.into())),
            DataType::UInt32 => to(self.integers(rows, 0, u32::MAX.into())),
            DataType::UInt64 => Arc::new(UInt64Array::from_iter_values(
                (0..rows).map(|_| self.0.random()),
            )),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                let special = [0.0, -0.0, f64::NAN, f64::INFINITY, 0.25];
                let values = (0..rows)
                    .map(|_| match self.0.random_range(0..8) {
                        at @ 0..5 => Some(special[at]),
                        5 => None,
                        _ => Some(self.0.random_range(-9.0..9.0)),
                    })
                    .collect::<Vec<_>>();
                to(Arc::new(Float64Array::from(values)))
            }
            DataType::Date32 => {
                let days = self.integers(rows, -30_000, 60_000);
                to(cast(&days, &DataType::Int32).unwrap())
            }
            DataType::Date64 => {
                let days = self.integers(rows, -30_000, 60_000);
                let days = cast(&days, &DataType::Int32).unwrap();
                to(cast(&days, &DataType::Date32).unwrap())
            }
            DataType::Time32(TimeUnit::Second) => self.time(data_type, rows, 1),
            DataType::Time32(_) => self.time(data_type, rows, 1000),
            DataType::Time64(TimeUnit::Microsecond) => self.time(data_type, rows, 1_000_000),
            // Pandas has no time with digits below a microsecond.
            DataType::Time64(_) => {
                let times = self.time(&DataType::Time64(TimeUnit::Microsecond), rows, 1_000_000);
                to(times)
            }
            DataType::Timestamp(unit, _) | DataType::Duration(unit) => {
                let scale = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                to(self.integers(rows, -SECONDS * scale, SECONDS * scale))
            }
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => {
                let most = 10_i128.pow(u32::from(*precision)) - 1;
                let values = (0..rows)
                    .map(|_| (!self.is_null()).then(|| self.0.random_range(-most..=most)))
                    .collect::<Vec<_>>();
                let values = Decimal128Array::from(values);
                let values = values.with_precision_and_scale(*precision, *scale).unwrap();
                to(Arc::new(values))
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => to(self.words(rows)),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                to(Arc::new(self.bytes(rows)))
            }
            DataType::FixedSizeBinary(width) => {
                let values = (0..rows)
                    .map(|_| (!self.is_null()).then(|| self.0.random::<[u8; 16]>()))
                    .collect::<Vec<_>>();
                let width = usize::try_from(*width).unwrap();
                let values = values
                    .iter()
                    .map(|bytes| bytes.as_ref().map(|all| &all[..width]));
                let width = i32::try_from(width).unwrap();
                let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, width);
                Arc::new(array.unwrap())
            }
            DataType::Dictionary(_, value) => {
                let values = self.array(value, rows);
                to(values)
            }
            DataType::RunEndEncoded(_, value) => {
                let values = self.array(value.data_type(), rows);
                to(values)
            }
            nested => self.nested(nested, rows),
        }
    }

    fn bytes(&mut self, rows: usize) -> BinaryArray {
        let values = (0..rows)
            .map(|_| {
                let length = self.0.random_range(0..16);
                (!self.is_null()).then(|| self.0.random::<[u8; 16]>()[..length].to_vec())
            })
            .collect::<Vec<_>>();
        values.iter().map(Option::as_deref).collect()
    }

    fn time(&mut self, data_type: &DataType, rows: usize, scale: i64) -> ArrayRef {
        let values = self.integers(rows, 0, 86_400 * scale - 1);
        let width = match data_type {
            DataType::Time32(_) => DataType::Int32,
            _ => DataType::Int64,
        };
        cast(&cast(&values, &width).unwrap(), data_type).unwrap()
    }

    fn nested(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        match data_type {
            DataType::List(child) | DataType::ListView(child) => self.list(child, data_type, rows),
            DataType::LargeList(child) | DataType::LargeListView(child) => {
                self.list(child, data_type, rows)
            }
            DataType::FixedSizeList(child, size) => {
                let values = self.array(child.data_type(), rows * usize::try_from(*size).unwrap());
                let (child, nulls) = (Arc::clone(child), Some(self.nulls(rows)));
                let list =
                    FixedSizeListArray::try_new_with_length(child, *size, values, nulls, rows);
                Arc::new(list.unwrap())
            }
            DataType::Struct(fields) => {
                let columns = fields
                    .iter()
                    .map(|field| self.array(field.data_type(), rows));
                let columns = columns.collect();
                let nulls = Some(self.nulls(rows));
                Arc::new(StructArray::new(fields.clone(), columns, nulls))
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    panic!("the entries of a map are {}", entries.data_type());
                };
                let offsets = self.lengths(rows);
                let count = usize::try_from(offsets.last()).unwrap();
                let keys = StringArray::from_iter_values((0..count).map(|key| format!("k{key}")));
                let values = self.array(fields[1].data_type(), count);
                let pairs = StructArray::new(fields.clone(), vec![Arc::new(keys), values], None);
                let nulls = Some(self.nulls(rows));
                Arc::new(MapArray::new(
                    Arc::clone(entries),
                    offsets,
                    pairs,
                    nulls,
                    false,
                ))
            }
            other => panic!("no random values of type {other}"),
        }
    }

    fn list(&mut self, child: &FieldRef, data_type: &DataType, rows: usize) -> ArrayRef {
        let offsets = self.lengths(rows);
        let count = usize::try_from(offsets.last()).unwrap();
        let values = self.array(child.data_type(), count);
        let list = ListArray::new(Arc::clone(child), offsets, values, Some(self.nulls(rows)));
        cast(&list, data_type).unwrap()
    }

    /// Categories of which each table has others: more than the keys of one type distinguish.
    fn narrow_dictionaries(&mut self, seed: u64, rows: usize) -> [(Field, ArrayRef); 1] {
        let words = (0..100).map(|word| format!("table {seed}, word {word}"));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values(words));
        let keys = (0..rows).map(|_| self.0.random_range(0..100));
        let column = DictionaryArray::new(Int8Array::from_iter_values(keys), words);
        let field = Field::new(
            "categories",
            dictionary(DataType::Int8, DataType::Utf8),
            false,
        );
        [(field, Arc::new(column))]
    }

    fn extensions(&mut self, rows: usize) -> Vec<(Field, ArrayRef)> {
        let with = |field: Field, name: &str, metadata: &str| {
            field.with_metadata([(NAME, name), (METADATA, metadata)])
        };
        let uuid = DataType::FixedSizeBinary(16);
        let json = StringArray::from_iter_values((0..rows).map(|row| format!("{{\"a\":{row}}}")));
        let child = Arc::new(Field::new_list_field(DataType::Float32, false));
        let values = (0..6 * rows).map(|_| self.0.random_range(-1.0..1.0_f32));
        let values = arrow::array::Float32Array::from_iter_values(values);
        let tensor = FixedSizeListArray::new(Arc::clone(&child), 6, Arc::new(values), None);
        let bools = self.integers(rows, 0, 1);
        let columns: [(&str, &str, &str, ArrayRef); 4] = [
            ("uuid", "arrow.uuid", "", self.array(&uuid, rows)),
            ("json", "arrow.json", "", Arc::new(json)),
            (
                "bool8",
                "arrow.bool8",
                "",
                cast(&bools, &DataType::Int8).unwrap(),
            ),
            (
                "own_type",
                "latentflow.test",
                "{\"unit\":\"mm\"}",
                self.array(&DataType::Int32, rows),
            ),
        ];
        let mut columns: Vec<(Field, ArrayRef)> = columns
            .into_iter()
            .map(|(name, extension, metadata, column)| {
                let field = Field::new(name, column.data_type().clone(), true);
                (with(field, extension, metadata), column)
            })
            .collect();
        let field = Field::new("tensor", tensor.data_type().clone(), false);
        let shape = "{\"shape\":[2,3]}";
        columns.push((
            with(field, "arrow.fixed_shape_tensor", shape),
            Arc::new(tensor),
        ));
        columns
    }
}
