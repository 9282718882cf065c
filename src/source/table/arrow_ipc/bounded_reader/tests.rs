//! Unit tests of the module `bounded_ipc_reader`.

#![allow(clippy::unwrap_used)]

use arrow::array::NullArray;
use arrow::ipc::writer::StreamWriter;
use arrow::ipc::{FieldBuilder, MessageBuilder, MetadataVersion, NullBuilder, SchemaBuilder, Type};
use flatbuffers::FlatBufferBuilder;

use super::*;
use crate::source::table::arrow_ipc::message::CONTINUATION;

const BOUNDS: IpcBounds = IpcBounds {
    header: 1 << 20,
    rows: 1000,
    rows_per_byte: ROWS_PER_BYTE,
    stored: 1 << 20,
    unpacked: 1 << 20,
};

/// Returns a stream whose schema refers to one column `count` times, in 4 bytes each.
fn repeated(count: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_string(&"n".repeat(1000));
    let null = NullBuilder::new(&mut builder).finish();
    let mut field = FieldBuilder::new(&mut builder);
    field.add_name(name);
    field.add_type_type(Type::Null);
    field.add_type_(null.as_union_value());
    let field = field.finish();
    let fields = builder.create_vector(&vec![field; count]);
    let mut schema = SchemaBuilder::new(&mut builder);
    schema.add_fields(fields);
    let schema = schema.finish();
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::Schema);
    message.add_header(schema.as_union_value());
    let message = message.finish();
    builder.finish(message, None);
    let header = builder.finished_data();
    let length = i32::try_from(header.len()).unwrap().to_le_bytes();
    [CONTINUATION.as_slice(), &length, header].concat()
}

#[test]
fn schema_that_repeats_one_column_is_refused() {
    let start = |count| {
        BoundedIpcReader::with_reservation(repeated(count).as_slice(), BOUNDS, |_| Ok(()))
            .map(|_| ())
    };
    assert_eq!(start(100), Ok(()));
    let error = start(100_000).unwrap_err();
    assert!(
        error.starts_with("the schema has more columns, or more text, "),
        "{error}"
    );
}

#[test]
fn refused_reservation_stops_the_reader() {
    let batch = RecordBatch::try_from_iter([
        (
            "a",
            Arc::new(arrow::array::Int64Array::from(vec![1; 500])) as ArrayRef,
        ),
        ("b", Arc::new(NullArray::new(500))),
    ]);
    let batch = batch.unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let body = writer.into_inner().unwrap();
    let mut announced = 0;
    let mut messages = BoundedIpcReader::with_reservation(body.as_slice(), BOUNDS, |bytes| {
        announced += bytes;
        Ok(())
    });
    assert_eq!(messages.as_mut().unwrap().next().unwrap().unwrap(), batch);
    drop(messages);
    assert!(announced >= 4000, "{announced}");
    let mut refused =
        BoundedIpcReader::with_reservation(
            body.as_slice(),
            BOUNDS,
            |_| Err("no memory".to_owned()),
        )
        .unwrap();
    assert_eq!(refused.next().unwrap_err(), "no memory");
    let few = IpcBounds {
        rows: 499,
        ..BOUNDS
    };
    assert!(
        BoundedIpcReader::with_reservation(body.as_slice(), few, |_| Ok(()))
            .unwrap()
            .next()
            .unwrap_err()
            .starts_with("a record batch declares 500 rows; ")
    );
}
