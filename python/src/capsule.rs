//! The Arrow PyCapsule interface: record batches and schemas of other libraries are taken and given
//! without a copy of their values. This is the only file with `unsafe` code.
//!
//! Source of the protocol: <https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>

use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, RecordBatch, RecordBatchIterator, RecordBatchReader,
    make_array,
};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use pyo3::exceptions::{PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";
const STREAM_METHOD: &str = "__arrow_c_stream__";

/// Converts an error of Arrow to a `ValueError`.
pub fn invalid(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn capsule<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyCapsule>> {
    let found = value.cast::<PyCapsule>();
    Ok(found
        .map_err(|_| PyTypeError::new_err("expected a PyCapsule"))?
        .clone())
}

/// The schema of an object with `__arrow_c_schema__`.
pub fn import_schema(value: &Bound<'_, PyAny>) -> PyResult<SchemaRef> {
    if !value.hasattr("__arrow_c_schema__")? {
        let message =
            "expected a schema: an object with `__arrow_c_schema__`, such as pyarrow.schema";
        return Err(PyTypeError::new_err(message));
    }
    schema_in(&capsule(&value.call_method0("__arrow_c_schema__")?)?)
}

fn schema_in(capsule: &Bound<'_, PyCapsule>) -> PyResult<SchemaRef> {
    let pointer = capsule.pointer_checked(Some(SCHEMA))?;
    // SAFETY: a capsule with this name holds an ArrowSchema, which lives as long as the capsule.
    let schema = unsafe { pointer.cast::<FFI_ArrowSchema>().as_ref() };
    Ok(Arc::new(Schema::try_from(schema).map_err(invalid)?))
}

fn import_stream(value: &Bound<'_, PyAny>) -> PyResult<RecordBatchStreamReader> {
    let stream = capsule(&value.call_method0(STREAM_METHOD)?)?;
    let pointer = stream.pointer_checked(Some(STREAM))?;
    // SAFETY: a capsule with this name holds an ArrowArrayStream. It is moved out of the capsule,
    // which is marked as released.
    let reader = unsafe {
        RecordBatchStreamReader::from_raw(pointer.cast::<FFI_ArrowArrayStream>().as_ptr())
    };
    reader.map_err(invalid)
}

/// The record batches of an object with `__arrow_c_stream__` or `__arrow_c_array__`.
pub fn import_batches(value: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
    if value.hasattr(STREAM_METHOD)? {
        let reader = import_stream(value)?;
        let schema = reader.schema();
        let batches = reader.map(|batch| validated(batch.map_err(invalid)?));
        return Ok((schema, batches.collect::<PyResult<_>>()?));
    }
    if value.hasattr("__arrow_c_array__")? {
        let batch = import_array(value)?;
        return Ok((batch.schema(), vec![batch]));
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "expected records with `__arrow_c_stream__` or `__arrow_c_array__`, such as a table of \
         pyarrow, Polars, DuckDB or pandas; got {kind}"
    )))
}

fn import_array(value: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let pair = value.call_method0("__arrow_c_array__")?;
    let pair = pair.cast::<PyTuple>()?;
    let (schema, array) = (capsule(&pair.get_item(0)?)?, capsule(&pair.get_item(1)?)?);
    let schema = schema_in(&schema)?;
    let pointer = array.pointer_checked(Some(ARRAY))?;
    // SAFETY: a capsule with this name holds an ArrowArray with the type of the schema. It is moved
    // out of the capsule, which is marked as released.
    let data = unsafe {
        let array = FFI_ArrowArray::from_raw(pointer.cast::<FFI_ArrowArray>().as_ptr());
        from_ffi_and_data_type(array, DataType::Struct(schema.fields().clone()))
    };
    let mut data = data.map_err(invalid)?;
    data.align_buffers();
    let array = make_array(data);
    let columns = array.as_struct().columns().to_vec();
    validated(RecordBatch::try_new(schema, columns).map_err(invalid)?)
}

/// Checks offsets and UTF-8, which this program relies on and other libraries do not always check.
fn validated(batch: RecordBatch) -> PyResult<RecordBatch> {
    let check = |column: &ArrayRef| column.to_data().validate_full().map_err(invalid);
    batch.columns().iter().try_for_each(check)?;
    Ok(batch)
}

/// A schema for other Arrow libraries, such as `pyarrow.schema(value)`.
#[pyclass(frozen, name = "Schema", module = "latentflow")]
pub struct PySchema(pub SchemaRef);

#[pymethods]
impl PySchema {
    #[new]
    fn new(schema: &Bound<'_, PyAny>) -> PyResult<Self> {
        import_schema(schema).map(Self)
    }

    /// The schema as the bytes of an Arrow IPC stream without records.
    fn serialize(&self) -> PyResult<Vec<u8>> {
        let mut bytes = Vec::new();
        let writer = StreamWriter::try_new(&mut bytes, &self.0);
        writer
            .and_then(|mut writer| writer.finish())
            .map_err(invalid)?;
        Ok(bytes)
    }

    /// The schema of an Arrow IPC stream.
    #[staticmethod]
    fn deserialize(data: &[u8]) -> PyResult<Self> {
        let reader = StreamReader::try_new(data, None).map_err(invalid)?;
        Ok(Self(reader.schema()))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.0.as_ref()).map_err(invalid)?;
        PyCapsule::new_with_value(py, schema, SCHEMA)
    }

    /// The names of the columns.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.0
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __repr__(&self) -> String {
        let field = |field: &arrow::datatypes::FieldRef| {
            let nullable = if field.is_nullable() { "" } else { " not null" };
            format!("{}: {}{nullable}", field.name(), field.data_type())
        };
        self.0
            .fields()
            .iter()
            .map(field)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Record batches for other Arrow libraries.
#[pyclass(frozen, name = "RecordBatches", module = "latentflow")]
pub struct PyBatches {
    /// The schema of all batches.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: Vec<RecordBatch>,
}

impl PyBatches {
    /// The number of records.
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

#[pymethods]
impl PyBatches {
    /// The records of several tables with the same columns.
    #[staticmethod]
    fn concat(parts: Vec<PyRef<'_, Self>>) -> PyResult<Self> {
        let first = parts.first();
        let first = first.ok_or_else(|| PyValueError::new_err("there are no tables to join"))?;
        if parts.iter().any(|part| part.schema != first.schema) {
            return Err(PyValueError::new_err("the tables have different columns"));
        }
        let batches = parts.iter().flat_map(|part| part.batches.iter().cloned());
        Ok(Self {
            schema: SchemaRef::clone(&first.schema),
            batches: batches.collect(),
        })
    }

    /// The records, in the schema of the table: a requested schema is a hint that may be ignored.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        drop(requested_schema);
        let batches: Vec<Result<RecordBatch, ArrowError>> =
            self.batches.iter().cloned().map(Ok).collect();
        let reader = RecordBatchIterator::new(batches, SchemaRef::clone(&self.schema));
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), STREAM)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        PySchema(SchemaRef::clone(&self.schema)).__arrow_c_schema__(py)
    }

    fn __len__(&self) -> usize {
        self.row_count()
    }

    /// The schema of the records.
    #[getter]
    fn schema(&self) -> PySchema {
        PySchema(SchemaRef::clone(&self.schema))
    }

    /// The text of the first `rows` records, by column.
    fn preview(&self, rows: usize) -> PyResult<Vec<(String, Vec<String>)>> {
        let text = |index: usize| -> PyResult<Vec<String>> {
            let mut values = Vec::new();
            for batch in &self.batches {
                for row in 0..batch.num_rows().min(rows - values.len()) {
                    let column = batch.column(index);
                    let value =
                        arrow::util::display::array_value_to_string(&column.slice(row, 1), 0);
                    values.push(value.map_err(invalid)?);
                }
            }
            Ok(values)
        };
        let names = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().clone());
        names
            .enumerate()
            .map(|(index, name)| Ok((name, text(index)?)))
            .collect()
    }
}

/// The columns of records with `__arrow_c_stream__` or `__arrow_c_array__`.
#[pyfunction]
pub fn schema_of(data: &Bound<'_, PyAny>) -> PyResult<PySchema> {
    if data.hasattr(STREAM_METHOD)? {
        return Ok(PySchema(import_stream(data)?.schema()));
    }
    import_batches(data).map(|(schema, _)| PySchema(schema))
}

/// A stream of the records that a Python iterator returns as tables.
#[pyfunction]
pub fn stream_of<'py>(
    py: Python<'py>,
    schema: &PySchema,
    tables: Py<PyAny>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let reader = PyTables {
        schema: SchemaRef::clone(&schema.0),
        tables,
        batches: VecDeque::new(),
    };
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), STREAM)
}

/// The records of the tables of an iterator.
struct PyTables {
    schema: SchemaRef,
    tables: Py<PyAny>,
    /// The remaining batches of the current table.
    batches: VecDeque<RecordBatch>,
}

impl PyTables {
    /// The batches of the next table; `None` at the end.
    fn table(&self, py: Python<'_>) -> PyResult<Option<Vec<RecordBatch>>> {
        let table = match self.tables.bind(py).call_method0("__next__") {
            Ok(table) => table,
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (schema, batches) = import_batches(&table)?;
        if schema.fields() != self.schema.fields() {
            let message = "a table of the stream has other columns than the first one";
            return Err(PyValueError::new_err(message));
        }
        Ok(Some(batches))
    }
}

impl Iterator for PyTables {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                return Some(Ok(batch));
            }
            // The consumer may be a library that has released the interpreter lock.
            match Python::attach(|py| self.table(py)) {
                Ok(batches) => self.batches.extend(batches?),
                Err(error) => return Some(Err(ArrowError::ExternalError(Box::new(error)))),
            }
        }
    }
}

impl RecordBatchReader for PyTables {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

/// The batches of a stream, one at a time.
#[pyclass(name = "BatchReader", module = "latentflow")]
pub struct PyBatchReader(Mutex<RecordBatchStreamReader>);

#[pymethods]
impl PyBatchReader {
    #[new]
    fn new(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        import_stream(data).map(|reader| Self(Mutex::new(reader)))
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self) -> PyResult<Option<PyBatches>> {
        let reader = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(batch) = reader.next() else {
            return Ok(None);
        };
        let batch = validated(batch.map_err(invalid)?)?;
        Ok(Some(PyBatches {
            schema: batch.schema(),
            batches: vec![batch],
        }))
    }
}
