//! Tests of the conversion of bodies into columns, and of its limits.
#![allow(clippy::unwrap_used)]

use arrow::array::{
    AsArray, DictionaryArray, Float32Array, Int8Array, Int32Array, NullArray, RunArray,
    StringViewArray,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use arrow::ipc::writer::StreamWriter;

use super::*;
use crate::source::http::body::media_type::MediaType;
use crate::source::http::body::memory_reservation::MemoryPool;
use crate::source::http::limits::HttpLimits;
use crate::units::ByteSize;

fn columns() -> RequestColumns {
    let columns = [
        ("x", RequestColumnType::Float),
        ("n", RequestColumnType::Int),
        ("list", RequestColumnType::Floats),
    ];
    let columns = columns
        .into_iter()
        .map(|(name, given)| (name.to_owned(), given))
        .collect();
    RequestColumns::features(&columns, 1 << 20).unwrap()
}

fn texts() -> RequestColumns {
    RequestColumns::features(
        &BTreeMap::from([("text".to_owned(), RequestColumnType::String)]),
        1 << 20,
    )
    .unwrap()
}

/// Parses with limits of 1 MiB per request and 8 MiB in total.
fn parse(
    columns: &RequestColumns,
    media: &MediaType,
    body: Vec<u8>,
) -> Result<RequestRecords, ErrorResponse> {
    let limits = HttpLimits {
        request: ByteSize(1 << 20),
        ..HttpLimits::default()
    };
    columns.parse(
        media,
        body,
        BodyBudget::new(&limits, "http", &mut MemoryPool::new(8 << 20).charge()),
    )
}

fn stream(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn refusal(columns: &RequestColumns, media: &MediaType, body: Vec<u8>) -> (u16, String) {
    let refusal = parse(columns, media, body).err().unwrap();
    (refusal.status.as_u16(), refusal.message)
}

#[test]
fn objects_are_parsed_and_invalid_lines_are_listed() {
    let body =
        b"{\"x\":1.5,\"n\":2,\"list\":[1,2.5]}\n\nnot json\n{\"x\":\"a\"}\n{\"n\":7}\n".to_vec();
    let RequestRecords {
        columns, rejected, ..
    } = parse(&columns(), &MediaType::Ndjson, body).unwrap();
    let (n, x) = (
        columns.column_by_name("n").unwrap(),
        columns.column_by_name("x").unwrap(),
    );
    assert_eq!(
        n.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
        [Some(2), Some(7)]
    );
    assert_eq!(
        x.as_primitive::<Float64Type>().iter().collect::<Vec<_>>(),
        [Some(1.5), None]
    );
    let invalid: Vec<_> = rejected
        .first
        .iter()
        .map(|rejected| (rejected.record, rejected.code))
        .collect();
    assert_eq!(
        invalid,
        [(1, "malformed"), (2, "malformed")],
        "blank lines do not count"
    );
}

#[test]
fn invalid_lines_are_counted_and_the_first_are_listed() {
    let body = format!("{{\"x\":1}}\n{}{{\"x\":2}}\n", "x\n".repeat(10_000)).into_bytes();
    let records = parse(&columns(), &MediaType::Ndjson, body).unwrap();
    assert_eq!(
        (
            records.columns.num_rows(),
            records.rejected.count,
            records.rejected.first.len()
        ),
        (2, 10_000, 100)
    );
    let limits = HttpLimits {
        records: std::num::NonZeroU32::new(100).unwrap(),
        ..HttpLimits::default()
    };
    let mut charge = MemoryPool::new(8 << 20).charge();
    let lines = "x\n".repeat(101).into_bytes();
    let refused = columns().parse(
        &MediaType::Ndjson,
        lines,
        BodyBudget::new(&limits, "http", &mut charge),
    );
    assert_eq!(
        refused.err().unwrap().message,
        "the body has more than 100 records (limits.records)"
    );
}

#[test]
fn name_of_the_source_counts_for_each_record() {
    let body = || "{}\n".repeat(5000).into_bytes();
    assert_eq!(
        parse(&texts(), &MediaType::Ndjson, body())
            .unwrap()
            .columns
            .num_rows(),
        5000
    );
    let limits = HttpLimits {
        request: ByteSize(1 << 20),
        ..HttpLimits::default()
    };
    let mut charge = MemoryPool::new(8 << 20).charge();
    let name = "n".repeat(256);
    let refusal = texts()
        .parse(
            &MediaType::Ndjson,
            body(),
            BodyBudget::new(&limits, &name, &mut charge),
        )
        .err()
        .unwrap();
    assert_eq!(refusal.status.as_u16(), 413, "{}", refusal.message);
}

#[test]
fn arrow_columns_are_matched_by_name_and_cast() {
    let list: ArrayRef = crate::tensor::fixed_column(2, vec![1.0, 2.0]).unwrap();
    let n: ArrayRef = Arc::new(Int32Array::from(vec![3]));
    let x: ArrayRef = Arc::new(Float32Array::from(vec![0.5]));
    let body = stream(vec![
        ("n", Arc::clone(&n)),
        ("more", Arc::clone(&n)),
        ("x", x),
        ("list", Arc::clone(&list)),
    ]);
    let records = parse(&columns(), &MediaType::Arrow, body).unwrap().columns;
    assert_eq!(records.schema().field(0).name(), "list");
    assert_eq!(
        records
            .column(0)
            .as_list::<i32>()
            .value(0)
            .as_primitive::<Float64Type>()
            .values(),
        &[1.0, 2.0]
    );
    let message = |bytes| refusal(&columns(), &MediaType::Arrow, bytes).1;
    let missing = message(stream(vec![("n", Arc::clone(&n))]));
    assert!(
        missing.starts_with("the stream has no column `list`; expected one of type "),
        "{missing}"
    );
    let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    let mismatch = message(stream(vec![("list", list), ("n", text)]));
    assert!(
        mismatch.starts_with("column `n` is Utf8View, expected Int64: "),
        "{mismatch}"
    );
}

#[test]
fn arrow_columns_count_with_their_size_after_the_cast() {
    let long: ArrayRef = Arc::new(StringArray::from(vec!["t".repeat(4000)]));
    let dictionary = |rows: usize| -> ArrayRef {
        Arc::new(DictionaryArray::new(
            Int8Array::from_iter_values(std::iter::repeat_n(0, rows)),
            Arc::clone(&long),
        ))
    };
    let runs = |rows: i32| -> ArrayRef {
        Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(vec![rows]), &long).unwrap())
    };
    let views = |rows: usize| -> ArrayRef {
        let views = StringViewArray::from(vec!["t".repeat(4000)]);
        Arc::new(arrow::compute::take(&views, &Int32Array::from(vec![0; rows]), None).unwrap())
    };
    for column in [dictionary(100), runs(100), views(100)] {
        let records = parse(&texts(), &MediaType::Arrow, stream(vec![("text", column)])).unwrap();
        let text = records.columns.column(0).as_string::<i32>();
        assert_eq!((text.len(), text.value(99).len()), (100, 4000));
    }
    let nulls: ArrayRef = Arc::new(NullArray::new(900_000));
    for column in [dictionary(1000), runs(900_000), views(1000), nulls] {
        let kind = column.data_type().clone();
        let body = stream(vec![("text", column)]);
        assert!(body.len() < 40_000, "{kind}: {}", body.len());
        assert_eq!(refusal(&texts(), &MediaType::Arrow, body).0, 413, "{kind}");
    }
}

/// Otherwise, terabytes of text would have to be validated as UTF-8 for a body of a few MiB.
#[test]
fn repeated_views_are_refused_before_utf8_is_validated() {
    let text = StringViewArray::from(vec!["t".repeat(4 << 20)]);
    let views = arrow::compute::take(&text, &Int32Array::from(vec![0; 500_000]), None).unwrap();
    assert_eq!(
        refusal(&texts(), &MediaType::Arrow, stream(vec![("text", views)])).0,
        413
    );
}

#[test]
fn text_views_are_cast_in_columns_and_dictionaries() {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![
        "short",
        "a text of more than twelve bytes",
    ]));
    let keys = Int8Array::from(vec![Some(1), None, Some(0)]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::clone(&text)));
    for (column, expected) in [
        (
            text,
            vec![Some("short"), Some("a text of more than twelve bytes")],
        ),
        (
            dictionary,
            vec![
                Some("a text of more than twelve bytes"),
                None,
                Some("short"),
            ],
        ),
    ] {
        let records = parse(&texts(), &MediaType::Arrow, stream(vec![("text", column)])).unwrap();
        assert_eq!(
            records
                .columns
                .column(0)
                .as_string::<i32>()
                .iter()
                .collect::<Vec<_>>(),
            expected
        );
    }
    let numbers: ArrayRef = Arc::new(StringViewArray::from(vec!["7"]));
    let x: ArrayRef = Arc::new(Float32Array::from(vec![0.5]));
    let list: ArrayRef = crate::tensor::fixed_column(2, vec![1.0, 2.0]).unwrap();
    let body = stream(vec![("list", list), ("n", Arc::clone(&numbers)), ("x", x)]);
    let records = parse(&columns(), &MediaType::Arrow, body).unwrap().columns;
    assert_eq!(
        records["n"]
            .as_primitive::<arrow::datatypes::Int64Type>()
            .value(0),
        7
    );
}

#[test]
fn arrow_rows_are_bounded_for_columns_without_values() {
    let nulls: ArrayRef = Arc::new(NullArray::new(1_000_001));
    let (status, message) = refusal(&texts(), &MediaType::Arrow, stream(vec![("text", nulls)]));
    assert_eq!(
        (status, message.as_str()),
        (
            413,
            "the body has more than 1000000 records (limits.records)"
        )
    );
}

#[test]
fn form_files_become_images_with_their_file_names() {
    let images = RequestColumns::images(1 << 20);
    let part = |head: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"i\"{head}\r\n\r\n{content}\r\n")
    };
    let body = [
        part("; filename=\"a.jpg\"", "one"),
        part("", "text"),
        part("; filename=\"b.jpg\"", "two"),
    ]
    .concat();
    let body = format!("{body}--b--\r\n").into_bytes();
    let records = parse(&images, &MediaType::Multipart("b".to_owned()), body).unwrap();
    let names = with_source(&records, "http").unwrap();
    assert_eq!(
        names
            .column(0)
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect::<Vec<_>>(),
        ["a.jpg", "b.jpg"]
    );
    assert_eq!(names.column(1).as_binary::<i32>().value(1), b"two");
    assert_eq!(
        (records.rejected.first[0].record, records.rejected.count),
        (1, 1)
    );
    let features = refusal(
        &texts(),
        &MediaType::Multipart("b".to_owned()),
        b"--b--".to_vec(),
    );
    assert_eq!(features.0, 422);
}

#[test]
fn json_images_are_decoded_and_invalid_ones_are_rejected() {
    let lines = [
        "{\"image\":\"AAEC\"}",
        "{\"image\":\"?\"}",
        "{}",
        "{\"image\":\"data:image/png;base64,AwQ=\",\"more\":1}",
    ];
    let body = lines.join("\n").into_bytes();
    let records = parse(&RequestColumns::images(1 << 20), &MediaType::Ndjson, body).unwrap();
    let images = records.columns.column(0).as_binary::<i32>();
    assert_eq!(
        (images.value(0), images.value(1)),
        ([0, 1, 2].as_slice(), [3, 4].as_slice())
    );
    let invalid: Vec<u64> = records
        .rejected
        .first
        .iter()
        .map(|rejected| rejected.record)
        .collect();
    assert_eq!(invalid, [1, 2]);
}

#[test]
fn unsupported_body_is_refused_entirely() {
    let images = RequestColumns::images(1 << 20);
    assert_eq!(
        parse(&images, &MediaType::Image, vec![1, 2])
            .unwrap()
            .columns
            .num_rows(),
        1
    );
    for (source, media, body, expected) in [
        (
            &images,
            MediaType::Image,
            vec![],
            "the body is empty; expected an image",
        ),
        (
            &columns(),
            MediaType::Image,
            vec![1],
            "this source accepts records with columns, not images",
        ),
        (
            &columns(),
            MediaType::Ndjson,
            b"\n".to_vec(),
            "the body has no records",
        ),
    ] {
        let expected = (422, expected.to_owned());
        assert_eq!(refusal(source, &media, body), expected);
    }
    assert_eq!(
        refusal(&columns(), &MediaType::Arrow, b"junk".to_vec()).0,
        422
    );
}
