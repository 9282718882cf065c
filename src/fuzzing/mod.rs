//! Entry points of the fuzz targets for parsers that no public interface reaches. Each checks the
//! guarantee of its parser. The module exists only in builds of cargo-fuzz, which sets `fuzzing`, and
//! needs S3 support.

mod http;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::basic::{Compression, Repetition, Type as PhysicalType};
use parquet::column::page::PageReader as _;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::{ColumnDescriptor, ColumnPath, Type};

use crate::json::to_json;
use crate::model::nondeterminism;
use crate::model::onnx_metadata::OnnxMetadata;
use crate::sink::images::name_log::NameLog;
use crate::source::rejects::format::OriginalFormat;
use crate::source::rejects::text_originals::{TextColumns, convert, parse};
use crate::source::table::parquet::page_sizes::DecodedSizes;
use crate::storage::FileReader;
use crate::topology::poison_records::crash_state::CrashState;

pub use http::{key_log, request_body, request_log};

/// Reads bytes as an ONNX file. Two models after one another are one model with the fields of both,
/// so they have the files and operator sets of both.
pub fn onnx(model: &[u8]) {
    let Ok(found) = OnnxMetadata::read(model) else {
        return;
    };
    let twice = OnnxMetadata::read(&model.repeat(2)).expect("each half can be read");
    assert_eq!(twice.external, found.external);
    assert_eq!(
        twice.opsets,
        [found.opsets.as_slice(), &found.opsets].concat()
    );
    if let Ok(outputs) = nondeterminism::find(model) {
        for name in outputs.keys() {
            if let Some(fault) = nondeterminism::fault(&outputs, name, false, Some("output")) {
                assert!(!fault.reason.is_empty() && !fault.message.is_empty());
            }
        }
    }
}

/// Removes unusable keys from the text of a listing. The rest has usable keys only, and no object
/// is lost without being counted.
pub fn listing(text: &[u8]) {
    use crate::storage::separate_listed_keys as separate;

    let Ok(found) = separate(&bytes::Bytes::copy_from_slice(text)) else {
        return;
    };
    let again = separate(&found.listing).expect("the rest is a listing");
    assert_eq!(
        (again.unusable.count, again.listing),
        (0, found.listing.clone())
    );
    let objects = |listing: &[u8]| {
        let (mut depth, mut objects, mut expected) = (0, 0_u64, (1, "Contents"));
        let mut reader = quick_xml::Reader::from_reader(listing);
        loop {
            match reader.read_event().expect("the listing was parsed before") {
                quick_xml::events::Event::Start(tag) => {
                    let name = tag.local_name();
                    if depth == 0 && name.as_ref() == b"EnumerationResults" {
                        expected = (2, "Blob");
                    }
                    let is_object = name.as_ref() == expected.1.as_bytes();
                    objects += u64::from(depth == expected.0 && is_object);
                    depth += 1;
                }
                quick_xml::events::Event::End(_) => depth -= 1,
                quick_xml::events::Event::Eof => return objects,
                _ => {}
            }
        }
    };
    assert!(objects(text) >= objects(&found.listing) + found.unusable.count);
    assert_eq!(found.unusable.example.is_some(), found.unusable.count > 0);
}

/// Sizes up the pages in a file, whose first byte chooses the type of the column. The sizes bound
/// what the library decodes from the pages.
pub fn page_sizes(path: &Path) {
    let bytes = fs::read(path).expect("the file");
    let Some((&kind, pages)) = bytes.split_first() else {
        return;
    };
    let types = [
        PhysicalType::BOOLEAN,
        PhysicalType::INT32,
        PhysicalType::INT64,
        PhysicalType::INT96,
        PhysicalType::BYTE_ARRAY,
        PhysicalType::FIXED_LEN_BYTE_ARRAY,
    ];
    let physical = types[usize::from(kind >> 1) % types.len()];
    let is_list = kind & 1 == 1;
    let column = Type::primitive_type_builder("x", physical)
        .with_repetition(if is_list {
            Repetition::REPEATED
        } else {
            Repetition::REQUIRED
        })
        .with_length(4)
        .build()
        .expect("a type");
    let level = i16::from(is_list);
    let descriptor = ColumnDescriptor::new(Arc::new(column), level, level, ColumnPath::from("x"));
    let chunk = ColumnChunkMetaData::builder(Arc::new(descriptor))
        .set_compression(Compression::UNCOMPRESSED)
        .set_data_page_offset(1)
        .set_total_compressed_size(i64::try_from(pages.len()).expect("a short file"))
        .set_num_values(1 << 20)
        .build()
        .expect("a column");
    let open = || FileReader::of_size(File::open(path).expect("the file"), bytes.len() as u64);
    let Ok(sizes) = DecodedSizes::read(&open(), &chunk, 1 << 12) else {
        return;
    };
    let Ok(mut reader) = SerializedPageReader::new(Arc::new(open()), &chunk, 0, None) else {
        return;
    };
    while let Ok(Some(page)) = reader.get_next_page() {
        assert!(page.buffer().len() as u64 <= sizes.peak, "{sizes:?}");
        if page.is_data_page() {
            assert!(u64::from(page.num_values()) <= sizes.bytes, "{sizes:?}");
        }
    }
}

/// Reads a text record that a reject stores. It is one record of the columns that were found, or a
/// reason.
pub fn stored_text(stored: &[u8]) {
    for format in [OriginalFormat::Csv, OriginalFormat::Json] {
        let mut columns = TextColumns::default();
        columns.add(format, stored);
        let found = Arc::new(columns.schema());
        let given: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Float64, true),
            Field::new("b", DataType::Utf8, true),
        ]));
        for schema in [found, given] {
            match parse(format, stored, &schema) {
                Ok(record) => {
                    assert_eq!(
                        (record.num_rows(), record.schema()),
                        (1, Arc::clone(&schema))
                    );
                    // A record without columns cannot be converted.
                    if !schema.fields().is_empty() {
                        let same = convert(&record, &schema).expect("it has these columns");
                        assert_eq!(same, record);
                    }
                }
                Err(reason) => assert!(!reason.to_string().is_empty()),
            }
        }
    }
}

/// Loads the crash state in a folder. No quarantined row is lost, and the state that is stored then
/// is read again without a change.
pub fn crash_state(folder: &Path) {
    let stored = fs::read(folder.join("notes.json")).unwrap_or_default();
    let before: Option<CrashState> = serde_json::from_slice(&stored).ok();
    let (state, _) = CrashState::load(folder, 7, None);
    let text = to_json(&state).expect("a state has a JSON form");
    for row in before.iter().flat_map(|before| &before.quarantined) {
        assert!(state.quarantined.contains(row));
    }
    fs::write(folder.join("notes.json"), &text).expect("a file");
    let _ = fs::remove_file(folder.join("in-flight"));
    let (again, run_end) = CrashState::load(folder, 7, None);
    assert!(run_end.is_none());
    assert_eq!(
        (again.quarantined, again.too_large),
        (state.quarantined, state.too_large)
    );
}

/// Opens the log of file names in the folder `root`, of which `committed` bytes are in use. No file
/// outside of the folder is removed, and the rest of the log is cut.
pub fn name_log(root: &Path, committed: u64) {
    let outside = root.with_file_name("outside");
    fs::write(&outside, b"kept").expect("a file");
    let folder = root.join("a");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("b.png"), b"image").expect("a file");
    let log = NameLog::open(root, committed).expect("a log is opened");
    assert!(outside.exists() && log.bytes() <= committed);
    let again = NameLog::open(root, log.bytes()).expect("a log is opened");
    assert_eq!(again.bytes(), log.bytes());
    let is_removed = !folder.join("b.png").exists();
    let found = NameLog::reset(root, true).expect("a log is removed");
    assert!(outside.exists() && (!is_removed || found.files == 0));
}
