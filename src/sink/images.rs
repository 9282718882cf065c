//! The sink `images`: writes a tensor column as image files, one a record.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::context::Context;
use crate::coverage::Coverage;
use crate::durable::{create, remove_temporaries, sync_folder, temporary};
use crate::error::{Fault, StageError};
use crate::image::encode::OutputFormat;
use crate::sink::encoder::{self, Encoder, pixel_column};
use crate::sink::lock::Lock;
use crate::sink::marker::{self, Marker};
use crate::sink::{Durable, History, Identity, Prepare, Sink, SinkConfig, Writer, Written};
use crate::source::{ROW, SOURCE};
use crate::store::Location;

/// Files after which they are made durable without being asked: what a crash costs at most.
const COMMIT_FILES: usize = 256;

/// Bytes after which the same is done.
const COMMIT_BYTES: u64 = 64 << 20;

/// JPEG's quality where none is given: hardly to be told from the original.
const QUALITY: u8 = 90;

/// How images are encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// PNG, lossless.
    #[default]
    Png,
    /// JPEG, of the given quality.
    Jpeg,
    /// WebP, lossless.
    Webp,
}

impl FileFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

/// Options of the sink `images`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Config {
    /// The folder to write to. Subfolders and names come from `source` and `row`: `a/b.jpg` becomes `a/b.jpg.png`.
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    path: PathBuf,
    /// The tensor column to write. Default: the only one that holds pixels.
    #[schemars(extend("x-changes-rows" = true))]
    column: Option<String>,
    /// `png` (default), `jpeg` or `webp`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    format: FileFormat,
    /// JPEG's quality, from 1 to 100. Default: 90.
    #[schemars(extend("x-changes-rows" = true))]
    quality: Option<u8>,
}

impl SinkConfig for Config {
    fn plan(&mut self, input: &SchemaRef, _: &Context) -> Result<Box<dyn Sink>, Vec<Fault>> {
        let mut faults = Vec::new();
        if self.path.as_os_str().is_empty() {
            faults.push(Fault::new("path", "is empty; write the folder that the images go to"));
        }
        if let Ok(Location::Remote(_)) | Err(_) = Location::of(&self.path) {
            let message = "images are written to folders of this machine only; the sink `parquet` writes to buckets";
            faults.push(Fault::new("path", message));
        }
        let quality = self.quality.unwrap_or(QUALITY);
        if self.format == FileFormat::Jpeg {
            self.quality = Some(quality);
        }
        if !(1..=100).contains(&quality) {
            faults.push(Fault::new("quality", format!("{quality} is no quality; expected 1 to 100")));
        } else if self.quality.is_some() && self.format != FileFormat::Jpeg {
            faults.push(Fault::new("quality", "only JPEG has one; remove it, or write format = \"jpeg\""));
        }
        for (name, kind) in [(SOURCE, DataType::Utf8), (ROW, DataType::UInt64)] {
            if input.column_with_name(name).is_none_or(|(_, field)| field.data_type() != &kind) {
                let message = format!("files are named by the column `{name}` ({kind}), which does not arrive here");
                faults.push(Fault::new("inputs", format!("{message}; keep it, as sources give it")));
            }
        }
        let output = match self.format {
            FileFormat::Png => OutputFormat::Png,
            FileFormat::Jpeg => OutputFormat::Jpeg(quality),
            FileFormat::Webp => OutputFormat::WebP,
        };
        match pixel_column(input, self.column.as_deref()) {
            Ok((column, pixels)) if faults.is_empty() => {
                self.column = Some(column.clone());
                let encoder = Encoder { column, pixels, output, extension: self.format.extension() };
                let folder = Location::Local(self.path.clone());
                Ok(Box::new(Images { path: self.path.clone(), folder, encoder, found: RefCell::default() }))
            }
            Ok(_) => Err(faults),
            Err(message) => {
                faults.push(Fault::new("column", message));
                Err(faults)
            }
        }
    }
}

/// The sink as planned.
struct Images {
    path: PathBuf,
    /// The same.
    folder: Location,
    encoder: Encoder,
    /// Taken before the first look at what is there: whoever looks without it may miss what another adds.
    found: RefCell<Option<(Lock, Marker)>>,
}

impl Images {
    fn found(&self) -> Result<(Lock, Marker), StageError> {
        let look = || Ok((Lock::take(&self.path)?, Marker::load(&self.folder)?));
        self.found.take().map_or_else(look, Ok)
    }
}

impl Sink for Images {
    fn folder(&self) -> Option<Location> {
        Some(self.folder.clone())
    }

    fn history(&self) -> Result<History, StageError> {
        let found = self.found()?;
        let history = found.1.history.clone();
        self.found.replace(Some(found));
        Ok(history)
    }

    fn accept(&self, digests: &[String]) -> Result<(), StageError> {
        let (lock, mut marker) = self.found()?;
        marker.history.accept(digests);
        marker.save(&marker::place(&self.folder, None))?;
        self.found.replace(Some((lock, marker)));
        Ok(())
    }

    fn forget(&self, remove: bool) -> Result<Written, StageError> {
        let _lock = Lock::take(&self.path)?;
        // The same record gives the same file: what is there will be written over.
        if remove {
            marker::place(&self.folder, None).remove()?;
        }
        Ok(Written::default())
    }

    fn preparation(&self) -> Option<Arc<dyn Prepare>> {
        Some(Arc::new(self.encoder.clone()))
    }

    fn open(self: Box<Self>, identity: Identity) -> Result<Box<dyn Writer>, StageError> {
        let (lock, marker) = self.found()?;
        remove_temporaries(&self.path, usize::MAX)?;
        Ok(Box::new(ImageWriter {
            marker_file: marker::place(&self.folder, None),
            path: self.path,
            identity,
            _lock: lock,
            marker,
            taken: Coverage::default(),
            folders: BTreeSet::new(),
            unnamed: BTreeMap::new(),
            unnamed_bytes: 0,
            written: Written::default(),
        }))
    }
}

/// The sink at work. Files get their names when they are durable; then the marker says whose rows are done.
struct ImageWriter {
    path: PathBuf,
    identity: Identity,
    _lock: Lock,
    marker: Marker,
    marker_file: Location,
    /// The source rows since the marker was written.
    taken: Coverage,
    /// Folders in which names have changed, known to be no links.
    folders: BTreeSet<PathBuf>,
    /// Files that still have their temporary name, by the name that they will have.
    unnamed: BTreeMap<PathBuf, PathBuf>,
    unnamed_bytes: u64,
    written: Written,
}

impl Writer for ImageWriter {
    fn write(&mut self, batch: &Batch) -> Result<Durable, StageError> {
        let Self { path, folders, unnamed, unnamed_bytes, .. } = self;
        for (name, bytes) in encoder::files(batch)? {
            let name = path.join(name);
            if unnamed.contains_key(&name) {
                return Err(StageError::Other(format!(
                    "{}: two records have this name; arms of a pipeline that meet here need a sink each",
                    name.display()
                )));
            }
            make_folders(path, &name, folders)?;
            let unfinished = temporary(&name);
            let written = create(&unfinished).and_then(|mut file| file.write_all(bytes));
            written.map_err(StageError::io(&unfinished))?;
            unnamed.insert(name, unfinished);
            *unnamed_bytes += bytes.len() as u64;
        }
        self.taken.insert(&batch.provenance);
        if self.unnamed.len() < COMMIT_FILES && self.unnamed_bytes < COMMIT_BYTES {
            return Ok(Durable::Nothing);
        }
        self.commit()?;
        Ok(Durable::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        for unfinished in self.unnamed.values() {
            File::open(unfinished).and_then(|file| file.sync_all()).map_err(StageError::io(unfinished))?;
        }
        for (name, unfinished) in &self.unnamed {
            fs::rename(unfinished, name).map_err(StageError::io(name))?;
        }
        self.folders.iter().try_for_each(|folder| sync_folder(folder))?;
        if !self.taken.is_empty() {
            self.marker.history.add(&self.identity, &std::mem::take(&mut self.taken));
            self.marker.save(&self.marker_file)?;
        }
        self.written.files += self.unnamed.len() as u64;
        self.written.records += self.unnamed.len() as u64;
        self.written.bytes += std::mem::take(&mut self.unnamed_bytes);
        self.unnamed.clear();
        self.folders.clear();
        Ok(())
    }

    fn adopt(&mut self, identity: Identity) -> Result<(), StageError> {
        if identity.digest != self.identity.digest {
            self.marker.history.accept(&[self.identity.digests(), identity.digests()].concat());
            self.marker.save(&self.marker_file)?;
        }
        self.identity = identity;
        Ok(())
    }

    fn written(&self) -> Written {
        self.written
    }
}

/// Makes the folders between `root` and `file`. One that is a link is refused: it may lead anywhere.
fn make_folders(root: &Path, file: &Path, known: &mut BTreeSet<PathBuf>) -> Result<(), StageError> {
    let Some(folder) = file.parent().filter(|folder| !known.contains(*folder)) else { return Ok(()) };
    if folder != root {
        make_folders(root, folder, known)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(StageError::io(folder)(error)),
            _ => {}
        }
        if !fs::symlink_metadata(folder).map_err(StageError::io(folder))?.is_dir() {
            return Err(StageError::Other(format!(
                "{}: expected a folder, met a file or a link; move it away, or write to another path",
                folder.display()
            )));
        }
    }
    known.insert(folder.to_path_buf());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
    use arrow::datatypes::{Field, Schema};
    use serde_json::{Value, json};

    use super::*;
    use crate::batch::{Provenance, Split};
    use crate::context::Limits;
    use crate::image::decode::decode;
    use crate::image::format::{Channels, Layout, PixelFormat};
    use crate::kind::find;
    use crate::sink::KINDS;
    use crate::source::origin_fields;
    use crate::tensor::{fixed_column, tensor_field, variable_column, variable_field};

    fn schema(fields: Vec<Field>) -> SchemaRef {
        Arc::new(Schema::new(origin_fields().into_iter().chain(fields).collect::<Vec<_>>()))
    }

    /// Two rows of two pixels each: RGB, planes.
    fn pixels() -> Field {
        PixelFormat::default().mark(tensor_field("pixels", &[3, 1, 2]).unwrap())
    }

    fn plan(schema: &SchemaRef, options: Value) -> Result<Box<dyn Sink>, Vec<Fault>> {
        let context = Context::new(BTreeMap::new(), Limits::default());
        (find(KINDS, "images", "sink").unwrap().plan)(options, schema, &context).map(|planned| planned.stage)
    }

    fn identity() -> Identity {
        Identity { pipeline: "p".into(), stage: "out".into(), digest: "d".into(), ..Identity::default() }
    }

    /// The sink at work, and what workers do for it.
    struct Opened {
        preparation: Arc<dyn Prepare>,
        writer: Box<dyn Writer>,
    }

    impl Opened {
        fn write(&mut self, batch: &Batch) -> Result<Durable, StageError> {
            self.writer.write(&self.preparation.prepare(batch.clone())?)
        }
    }

    fn open_sink(sink: Box<dyn Sink>) -> Opened {
        Opened { preparation: sink.preparation().unwrap(), writer: sink.open(identity()).unwrap() }
    }

    fn open(folder: &Path) -> Opened {
        open_sink(plan(&schema(vec![pixels()]), json!({ "path": folder })).unwrap())
    }

    /// Row `start` of the split and those after it, all pixels of brightness `value`.
    fn batch(start: u64, sources: &[&str], value: f32) -> Batch {
        let len = sources.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(sources.to_vec())),
            Arc::new(UInt64Array::from(vec![0; len])),
            fixed_column(6, vec![value; 6 * len]).unwrap(),
        ];
        let records = RecordBatch::try_new(schema(vec![pixels()]), columns).unwrap();
        Batch::new(records, Provenance::rows(Split::new("in/listing-0"), start..start + len as u64))
    }

    /// All files below a folder but those of its state, sorted.
    fn files(folder: &Path) -> Vec<String> {
        let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap);
        let files = files.filter(|entry| entry.file_type().is_file());
        let names = files.map(|e| e.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
        names.filter(|name| !name.starts_with("_latentflow")).collect()
    }

    fn committed(folder: &Path) -> u64 {
        let sink = plan(&schema(vec![pixels()]), json!({ "path": folder })).unwrap();
        sink.history().unwrap().coverage().len()
    }

    #[test]
    fn records_become_files_with_their_pixels_once_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path());
        sink.write(&batch(0, &["a/b.jpg", "../x.jpg"], 0.4)).unwrap();
        assert!(
            files(folder.path()).iter().all(|name| name.contains(".latentflow-")),
            "no final name before the commit"
        );
        sink.writer.commit().unwrap();
        assert_eq!(files(folder.path()), ["%2E%2E/x.jpg.png", "a/b.jpg.png"]);
        let bytes = fs::read(folder.path().join("a/b.jpg.png")).unwrap();
        let image = decode(&bytes, Channels::Rgb, 100).unwrap();
        assert_eq!((image.width, image.height, image.data), (2, 1, vec![102; 6]));
        let written = sink.writer.written();
        assert_eq!((written.files, written.records, written.bytes), (2, 2, 2 * bytes.len() as u64));
    }

    #[test]
    fn images_of_their_own_sizes_are_written_in_any_format() {
        for (format, extension) in [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")] {
            let folder = tempfile::tempdir().unwrap();
            let gray = PixelFormat { channels: Channels::Gray, layout: Layout::Nhwc, ..PixelFormat::default() };
            let schema = schema(vec![gray.mark(variable_field("pixels", 3).unwrap())]);
            let shapes = [vec![2, 3, 1], vec![1, 1, 1]];
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(vec!["a.parquet", "a.parquet"])),
                Arc::new(UInt64Array::from(vec![0, 7])),
                variable_column(3, vec![1.0; 7], &shapes).unwrap(),
            ];
            let records = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            let batch = Batch::new(records, Provenance::rows(Split::new("a"), 0..2));
            let sink = plan(&schema, json!({ "path": folder.path(), "format": format })).unwrap();
            let mut sink = open_sink(sink);
            sink.write(&batch).unwrap();
            sink.writer.commit().unwrap();
            let names = [0, 7].map(|row| format!("a.parquet/{row:06}.{extension}"));
            assert_eq!(files(folder.path()), names);
            let image = decode(&fs::read(folder.path().join(&names[0])).unwrap(), Channels::Gray, 100).unwrap();
            assert_eq!((image.height, image.width, image.data), (2, 3, vec![255; 6]));
        }
    }

    #[test]
    fn a_later_run_knows_what_is_done_and_writes_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path());
        sink.write(&batch(0, &["a.jpg"], 0.0)).unwrap();
        sink.write(&batch(1, &[], 0.0)).unwrap();
        sink.writer.commit().unwrap();
        drop(sink);
        assert_eq!(committed(folder.path()), 1);
        let mut sink = open(folder.path());
        let before = fs::read(folder.path().join("a.jpg.png")).unwrap();
        sink.write(&batch(0, &["a.jpg"], 0.0)).unwrap();
        sink.write(&batch(1, &["b.jpg"], 1.0)).unwrap();
        sink.writer.commit().unwrap();
        assert_eq!(fs::read(folder.path().join("a.jpg.png")).unwrap(), before);
        drop(sink);
        assert_eq!((committed(folder.path()), files(folder.path()).len()), (2, 2));
    }

    #[test]
    fn a_batch_that_lost_its_records_is_done_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path());
        let mut empty = batch(0, &["a.jpg", "b.jpg"], 0.0);
        empty.records = empty.records.slice(0, 0);
        empty.origin.clear();
        sink.write(&empty).unwrap();
        sink.writer.commit().unwrap();
        drop(sink);
        assert_eq!((committed(folder.path()), files(folder.path()).len()), (2, 0));
    }

    #[test]
    fn a_run_that_ends_without_a_commit_leaves_nothing_that_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path());
        sink.write(&batch(0, &["a/b.jpg"], 0.0)).unwrap();
        drop(sink);
        assert_eq!((committed(folder.path()), files(folder.path()).len()), (0, 1));
        drop(open(folder.path()));
        assert!(files(folder.path()).is_empty(), "the next run removes what was unfinished");
    }

    #[test]
    fn many_files_are_made_durable_without_being_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path());
        let names: Vec<String> = (0..COMMIT_FILES).map(|n| format!("{n}.jpg")).collect();
        sink.write(&batch(0, &names.iter().map(String::as_str).collect::<Vec<_>>(), 0.0)).unwrap();
        assert_eq!(sink.writer.written().files, COMMIT_FILES as u64);
        drop(sink);
        assert_eq!(committed(folder.path()), COMMIT_FILES as u64);
    }

    #[test]
    fn two_records_of_one_name_are_an_error_instead_of_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path()).write(&batch(0, &["a.jpg", "a.jpg"], 0.0)).unwrap_err().to_string();
        assert!(error.contains("a.jpg.png: two records have this name"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_folder_leads_nowhere() {
        use std::os::unix::fs::symlink;
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(outside.path(), folder.path().join("a")).unwrap();
        symlink(&victim, folder.path().join("b.jpg.png")).unwrap();
        let mut sink = open(folder.path());
        let error = sink.write(&batch(0, &["a/x.jpg"], 0.0)).unwrap_err().to_string();
        assert!(error.contains("expected a folder, met a file or a link"), "{error}");
        sink.write(&batch(0, &["b.jpg"], 0.0)).unwrap();
        sink.writer.commit().unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn every_fault_of_the_options_is_named() {
        let faults = |fields: Vec<Field>, options: Value| -> Vec<String> {
            let faults = plan(&schema(fields), options).err().unwrap_or_default();
            faults.into_iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect()
        };
        let other = || PixelFormat::default().mark(tensor_field("clean", &[3, 1, 2]).unwrap());
        let one = faults(vec![pixels(), other()], json!({ "path": "", "quality": 101 }));
        assert_eq!(
            one,
            [
                "path: is empty; write the folder that the images go to",
                "quality: 101 is no quality; expected 1 to 100",
                "column: several columns hold pixels; choose one: pixels, clean",
            ]
        );
        assert_eq!(
            faults(vec![pixels()], json!({ "path": "x", "quality": 80, "column": "row" })),
            [
                "quality: only JPEG has one; remove it, or write format = \"jpeg\"",
                "column: `row` does not hold pixels; these do: pixels",
            ]
        );
        assert_eq!(faults(vec![pixels(), other()], json!({ "path": "x", "column": "clean" })), [""; 0]);
        let bare = Arc::new(Schema::new(vec![pixels()]));
        let keys: Vec<String> = plan(&bare, json!({ "path": "x" })).err().unwrap().into_iter().map(|f| f.key).collect();
        assert_eq!(keys, ["inputs", "inputs"]);
    }
}
