//! Unit tests of the module `stdout`.

#![allow(clippy::unwrap_used)]

use arrow::array::{ArrayRef, BinaryArray, Float32Array, StringArray, TimestampMillisecondArray};

use super::*;
use crate::batch::provenance::{Provenance, Split};
use crate::tensor::{fixed_column, variable_column, variable_field, vector_field};

fn records() -> RecordBatch {
    let fields = vec![
        Field::new("source", DataType::Utf8, false),
        vector_field("latent", 2),
        variable_field("pixels", 2).unwrap(),
        Field::new("error", DataType::Float32, true),
        Field::new("image", DataType::Binary, false),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a \"b\"\n", "c"])),
        fixed_column(2, vec![0.5, -1.0, f32::NAN, 2.0]).unwrap(),
        variable_column(2, vec![1.0, 2.0, 3.0], &[vec![1, 2], vec![1, 1]]).unwrap(),
        Arc::new(Float32Array::from(vec![None, Some(0.25)])),
        Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn batch() -> Batch {
    Batch::new(records(), Provenance::rows(Split::new("a"), 0..2))
}

#[test]
fn each_record_is_an_object_per_line_with_all_keys() {
    let columns = ColumnSelection::select(None, &records().schema()).unwrap();
    let mut lines = NdjsonWriter::new(columns, Vec::new(), false);
    lines.write(&batch()).unwrap();
    let expected = concat!(
        r#"{"source":"a \"b\"\n","latent":[0.5,-1.0],"#,
        r#""pixels":{"data":[1.0,2.0],"shape":[1,2]},"error":null,"image":"00ff"}"#,
        "\n",
        r#"{"source":"c","latent":[null,2.0],"pixels":{"data":[3.0],"shape":[1,1]},"#,
        r#""error":0.25,"image":""}"#,
        "\n",
    );
    assert_eq!(String::from_utf8(lines.output).unwrap(), expected);
}

#[test]
fn only_selected_columns_are_printed() {
    let names = ["error".to_owned(), "source".to_owned()];
    let columns = ColumnSelection::select(Some(&names), &records().schema()).unwrap();
    let mut lines = NdjsonWriter::new(columns, Vec::new(), false);
    lines.write(&batch()).unwrap();
    let text = String::from_utf8(lines.output).unwrap();
    assert_eq!(text.lines().last(), Some(r#"{"error":0.25,"source":"c"}"#));
}

#[test]
fn control_characters_are_escaped_on_a_terminal() {
    let field = Field::new("source", DataType::Utf8, false);
    let column: ArrayRef = Arc::new(StringArray::from(vec!["\u{9b}31m\u{202e}gpj\u{7f}é"]));
    let records = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
    let printed = |is_terminal: bool| {
        let columns = ColumnSelection::select(None, &records.schema()).unwrap();
        let mut lines = NdjsonWriter::new(columns, Vec::new(), is_terminal);
        lines
            .write(&Batch::new(
                records.clone(),
                Provenance::rows(Split::new("a"), 0..1),
            ))
            .unwrap();
        String::from_utf8(lines.output).unwrap()
    };
    assert_eq!(
        printed(true),
        "{\"source\":\"\\u009b31m\\u202egpj\\u007fé\"}\n"
    );
    assert_eq!(
        printed(false),
        "{\"source\":\"\u{9b}31m\u{202e}gpj\u{7f}é\"}\n"
    );
}

#[test]
fn closed_output_is_a_separate_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut lines = NdjsonWriter::new(
        ColumnSelection::select(None, &records().schema()).unwrap(),
        Closed,
        false,
    );
    assert!(matches!(
        lines.write(&batch()).unwrap_err(),
        StageError::OutputClosed
    ));
}

#[test]
fn column_that_cannot_be_printed_is_a_fault() {
    let union = DataType::Union(
        arrow::datatypes::UnionFields::empty(),
        arrow::datatypes::UnionMode::Sparse,
    );
    let schema = Schema::new(vec![Field::new("choice", union, false)]);
    let faults = check_types(&schema).unwrap_err();
    assert!(
        faults[0]
            .message
            .starts_with("column `choice` cannot be printed: "),
        "{}",
        faults[0].message
    );
}

#[test]
fn times_in_a_named_zone_are_printed_in_utc() {
    let times = TimestampMillisecondArray::from(vec![1_704_164_645_250]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![Arc::new(times)];
    let field = Field::new("t", columns[0].data_type().clone(), false);
    let schema = Schema::new(vec![field]);
    assert!(check_types(&schema).is_ok());
    let records = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let mut json = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
    json.write(&with_numeric_offsets(&records).unwrap())
        .unwrap();
    assert_eq!(json.into_inner(), b"{\"t\":\"2024-01-02T03:04:05.250Z\"}\n");
}
