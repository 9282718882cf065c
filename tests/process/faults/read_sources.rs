//! The sources of the read fault tests, each with three small files and their rows.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::ipc::writer::FileWriter;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use tar::{Builder, Header};

/// The names of the files of a source, without their extension.
pub const FILES: [&str; 3] = ["a", "b", "c"];

/// A source and its input.
pub struct Source {
    /// The options of the source stage: at least `kind` and `path`.
    pub options: &'static str,
    /// The extension of its files.
    pub extension: &'static str,
    /// The content of a file.
    pub content: fn(&str) -> Vec<u8>,
    /// The rows of a file, each as `<source> <row>`.
    pub rows: fn(&str) -> Vec<String>,
}

impl Source {
    /// Writes the input below `folder`.
    pub fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("in")).unwrap();
        for name in FILES {
            fs::write(self.file(folder, name), (self.content)(name)).unwrap();
        }
    }

    /// The path of an input file.
    pub fn file(&self, folder: &Path, name: &str) -> std::path::PathBuf {
        folder.join(format!("in/{name}.{}", self.extension))
    }

    /// Whether the plan reads every file, so that an error of the process ends it.
    pub fn plans_all_files(&self) -> bool {
        !["idx", "tar", "images"]
            .iter()
            .any(|kind| self.options.contains(&format!("kind = \"{kind}\"")))
    }

    /// A pipeline that writes the source and row of every record.
    pub fn pipeline(&self) -> String {
        format!(
            "[stages.in]\n{}\nbatch = {{ records = 8 }}\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
             columns = [\"source\", \"row\"]\n",
            self.options
        )
    }
}

/// Rows of each file, except for image files, which hold one.
const ROWS: u64 = 240;
/// Rows of a row group, and of a batch in an Arrow file.
const GROUP: usize = 80;

fn numbered(name: &str, extension: &str) -> Vec<String> {
    (0..ROWS)
        .map(|row| format!("{name}.{extension} {row}"))
        .collect()
}

fn rows() -> Range<u64> {
    0..ROWS
}

fn numbers() -> RecordBatch {
    let column: ArrayRef = Arc::new(Float64Array::from_iter_values(
        rows().map(|row| row as f64 / 4.0),
    ));
    RecordBatch::try_from_iter([("x", column)]).unwrap()
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP))
        .set_dictionary_enabled(false);
    let properties = properties.build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn image(shade: u64) -> Vec<u8> {
    [
        b"P5 2 2 255\n".as_slice(),
        &[u8::try_from(shade).unwrap(); 4],
    ]
    .concat()
}

fn image_column() -> RecordBatch {
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(rows().map(image)));
    RecordBatch::try_from_iter([("image", images)]).unwrap()
}

fn arrow_file() -> Vec<u8> {
    let batch = numbers();
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    for start in (0..batch.num_rows()).step_by(GROUP) {
        writer.write(&batch.slice(start, GROUP)).unwrap();
    }
    writer.into_inner().unwrap()
}

fn idx(sides: &[u32]) -> Vec<u8> {
    let count: u32 = sides.iter().product();
    let values = (0..count).map(|place| u8::try_from(place % 251).unwrap());
    let head = [0, 0, 8, u8::try_from(sides.len()).unwrap()];
    head.into_iter()
        .chain(sides.iter().flat_map(|side| side.to_be_bytes()))
        .chain(values)
        .collect()
}

fn npy() -> Vec<u8> {
    let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({ROWS}, 2), }}\n");
    let values = (0..2 * ROWS).flat_map(|value| (value as f64).to_le_bytes());
    let length = u16::try_from(text.len()).unwrap().to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, text.as_bytes()]
        .concat()
        .into_iter()
        .chain(values)
        .collect()
}

fn npz() -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    let method = CompressionMethod::DEFLATE;
    let (mut entry, config) = archive
        .new_file("x.npy")
        .compression_method(method)
        .start()
        .unwrap();
    let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
    writer.write_all(&npy()).unwrap();
    let (encoder, descriptor) = writer.finish().unwrap();
    encoder.finish().unwrap();
    entry.finish(descriptor).unwrap();
    archive.finish().unwrap()
}

fn tar() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for row in rows() {
        let image = image(row);
        let mut header = Header::new_gnu();
        header.set_size(image.len() as u64);
        builder
            .append_data(&mut header, format!("{row}.pgm"), image.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn rejects(name: &str) -> Vec<u8> {
    let text = |value: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows().map(|_| value)))
    };
    let columns: [(&str, ArrayRef); 7] = [
        ("source", text(&format!("{name}.parquet"))),
        ("row", Arc::new(UInt64Array::from_iter_values(rows()))),
        ("split", text("files/listing-0")),
        ("stage", text("pixels")),
        ("code", text("unsupported")),
        ("format", text("image")),
        (
            "record",
            Arc::new(BinaryArray::from_iter_values(rows().map(image))),
        ),
    ];
    parquet(&RecordBatch::try_from_iter(columns).unwrap())
}

/// Every kind of source that reads files.
pub const SOURCES: [Source; 11] = [
    Source {
        options: "kind = \"csv\"\npath = \"in\"",
        extension: "csv",
        content: |_| {
            rows()
                .fold("x,y\n".to_owned(), |text, row| {
                    format!("{text}{row},{row}.5\n")
                })
                .into_bytes()
        },
        rows: |name| numbered(name, "csv"),
    },
    Source {
        options: "kind = \"ndjson\"\npath = \"in\"",
        extension: "ndjson",
        content: |_| {
            rows()
                .map(|row| format!("{{\"x\": {row}}}\n"))
                .collect::<String>()
                .into_bytes()
        },
        rows: |name| numbered(name, "ndjson"),
    },
    Source {
        options: "kind = \"parquet\"\npath = \"in\"",
        extension: "parquet",
        content: |_| parquet(&numbers()),
        rows: |name| numbered(name, "parquet"),
    },
    Source {
        options: "kind = \"parquet\"\npath = \"in\"\nreaders = 3",
        extension: "parquet",
        content: |_| parquet(&image_column()),
        rows: |name| numbered(name, "parquet"),
    },
    Source {
        options: "kind = \"arrow\"\npath = \"in\"",
        extension: "arrow",
        content: |_| arrow_file(),
        rows: |name| numbered(name, "arrow"),
    },
    Source {
        options: "kind = \"idx\"\npath = \"in\"",
        extension: "idx",
        content: |_| idx(&[u32::try_from(ROWS).unwrap(), 2, 2]),
        rows: |name| numbered(name, "idx"),
    },
    Source {
        options: "kind = \"npz\"\npath = \"in\"",
        extension: "npz",
        content: |_| npz(),
        rows: |name| numbered(name, "npz"),
    },
    Source {
        options: "kind = \"npz\"\npath = \"in\"",
        extension: "npy",
        content: |_| npy(),
        rows: |name| numbered(name, "npy"),
    },
    Source {
        options: "kind = \"tar\"\npath = \"in\"",
        extension: "tar",
        content: |_| tar(),
        rows: |name| {
            (0..ROWS)
                .map(|row| format!("{name}.tar/{row}.pgm {row}"))
                .collect()
        },
    },
    Source {
        options: "kind = \"images\"\npath = \"in\"",
        extension: "pgm",
        content: |_| image(7),
        rows: |name| vec![format!("{name}.pgm 0")],
    },
    Source {
        options: "kind = \"rejects\"\npath = \"in\"",
        extension: "parquet",
        content: rejects,
        rows: |name| numbered(name, "parquet"),
    },
];

/// Writes images to `in/images` and their labels to `in/labels`.
pub fn write_labeled(folder: &Path) {
    let count = u32::try_from(ROWS).unwrap();
    fs::create_dir_all(folder.join("in")).unwrap();
    File::create(folder.join("in/images"))
        .unwrap()
        .write_all(&idx(&[count, 2, 2]))
        .unwrap();
    File::create(folder.join("in/labels"))
        .unwrap()
        .write_all(&idx(&[count]))
        .unwrap();
}

/// The rows of [`write_labeled`].
pub fn labeled_rows() -> Vec<String> {
    rows().map(|row| format!("images {row}")).collect()
}
