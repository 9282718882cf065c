//! A session of ONNX Runtime, which runs batches of records.

use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::session::{HasSelectedOutputs, RunOptions};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};
use prometheus::Histogram;

use crate::model::dynamic_batcher::RunBatch;
use crate::model::ort_backend::{LoadedGraph, element_of, reason, selected_outputs};
use crate::model::tensor_spec::{ElementType, TensorSpec};

/// A session that runs one input to the selected outputs, on the thread that owns it.
pub struct OrtSession {
    pub(super) session: ort::session::Session,
    run_options: RunOptions<HasSelectedOutputs>,
    pub(super) input: String,
    pub(super) element: ElementType,
    pub(super) outputs: Vec<String>,
    bytes: Vec<u8>,
    halves: Vec<f16>,
    metrics: InferenceMetrics,
}

/// The metrics of the calls of a session.
pub struct InferenceMetrics {
    /// The duration of a call in seconds.
    pub seconds: Histogram,
    /// The number of records of a call.
    pub records: Histogram,
}

impl OrtSession {
    /// A session that computes `outputs`. `metrics` observes each call.
    ///
    /// # Errors
    /// The message of ONNX Runtime when it does not support the selection.
    pub(in crate::model) fn new(
        LoadedGraph(session): LoadedGraph,
        input: &TensorSpec,
        outputs: &[&TensorSpec],
        metrics: InferenceMetrics,
    ) -> Result<Self, String> {
        Ok(Self {
            session,
            run_options: selected_outputs(outputs.iter().map(|output| output.name.as_str()))?,
            input: input.name.clone(),
            element: input.element.clone(),
            outputs: outputs.iter().map(|output| output.name.clone()).collect(),
            bytes: Vec::new(),
            halves: Vec::new(),
            metrics,
        })
    }
}

impl RunBatch for OrtSession {
    /// For a uint8 input, values are rounded, and clamped to 0..255. Only pixels need the clamping:
    /// other values were checked. The values of several outputs follow each other in each record,
    /// whose shape is then the number of all values.
    fn run_batch(
        &mut self,
        dims: &[usize],
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let begun = Instant::now();
        let value = match self.element {
            ElementType::Uint8 => {
                self.bytes.clear();
                self.bytes
                    .extend(values.iter().map(|value| value.round() as u8));
                TensorRef::from_array_view((dims, self.bytes.as_slice())).map(TensorRef::into_dyn)
            }
            ElementType::Float16 => {
                self.halves.resize(values.len(), f16::ZERO);
                self.halves.convert_from_f32_slice(values);
                TensorRef::from_array_view((dims, self.halves.as_slice())).map(TensorRef::into_dyn)
            }
            _ => TensorRef::from_array_view((dims, values)).map(TensorRef::into_dyn),
        };
        let inputs = ort::inputs![self.input.as_str() => value.map_err(reason)?];
        let outputs = self
            .session
            .run_with_options(inputs, &self.run_options)
            .map_err(reason)?;
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.records.observe(rows as f64);
        let batch = dims.first().copied().unwrap_or_default();
        let output = |name: &String| {
            let found = outputs.get(name);
            found.ok_or_else(|| format!("ONNX Runtime did not return the output `{name}`"))
        };
        if let [only] = self.outputs.as_slice() {
            return append_rows(output(only)?, batch, rows, out);
        }
        let mut columns = Vec::new();
        for name in &self.outputs {
            let mut column = Vec::new();
            append_rows(output(name)?, batch, rows, &mut column)?;
            columns.push(column);
        }
        let lens: Vec<usize> = columns
            .iter()
            .map(|column| column.len() / rows.max(1))
            .collect();
        for row in 0..rows {
            for (column, len) in columns.iter().zip(&lens) {
                out.extend_from_slice(&column[row * len..(row + 1) * len]);
            }
        }
        Ok(vec![lens.iter().sum()])
    }
}

/// Appends the outputs of the first `rows` of `batch` records to `out`. Returns the shape of one.
fn append_rows(
    output: &DynValue,
    batch: usize,
    rows: usize,
    out: &mut Vec<f32>,
) -> Result<Vec<usize>, String> {
    let ValueType::Tensor { ty, shape, .. } = output.dtype() else {
        return Err(format!(
            "the output has the type {}; expected a tensor",
            output.dtype()
        ));
    };
    let dims: Vec<usize> = shape
        .iter()
        .filter_map(|&dim| usize::try_from(dim).ok())
        .collect();
    let Some((&first, row)) = dims.split_first().filter(|(first, _)| **first == batch) else {
        return Err(format!(
            "the output has the shape {dims:?} for a batch of {batch} records; expected {batch} as \
             its first dimension"
        ));
    };
    let len = dims.iter().product::<usize>() / first.max(1) * rows;
    let short = || "the output has fewer values than its shape declares".to_owned();
    match ty {
        TensorElementType::Float32 => {
            let (_, values) = output.try_extract_tensor::<f32>().map_err(reason)?;
            out.extend_from_slice(values.get(..len).ok_or_else(short)?);
        }
        TensorElementType::Float64 => {
            let (_, values) = output.try_extract_tensor::<f64>().map_err(reason)?;
            out.extend(
                values
                    .get(..len)
                    .ok_or_else(short)?
                    .iter()
                    .map(|&value| value as f32),
            );
        }
        TensorElementType::Float16 => {
            let (_, values) = output.try_extract_tensor::<f16>().map_err(reason)?;
            let start = out.len();
            out.resize(start + len, 0.0);
            values
                .get(..len)
                .ok_or_else(short)?
                .convert_to_f32_slice(&mut out[start..]);
        }
        TensorElementType::Uint8 => {
            let (_, values) = output.try_extract_tensor::<u8>().map_err(reason)?;
            out.extend(
                values
                    .get(..len)
                    .ok_or_else(short)?
                    .iter()
                    .map(|&value| f32::from(value)),
            );
        }
        other => {
            return Err(format!(
                "the output has the element type {}; expected float16, float32, float64 or uint8",
                element_of(*other)
            ));
        }
    }
    Ok(row.to_vec())
}
