//! Records that are encoded at once: those of several requests together, as many as come while workers are busy.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::batch::{SourceBatch, Split};
use crate::source::Ask;
use crate::source::gather::Rules;
use crate::source::http::columns::{ARROW_STREAM, Refused};
use crate::source::http::fates::Rejected;
use crate::source::http::pump::{Shape, feature_batches};
use crate::source::record_files::guarded;
use crate::tensor::TensorShape;

/// Requests that wait to be put together.
const WAITING: usize = 1024;

/// Where requests hand in what is to be encoded.
#[derive(Clone)]
pub(super) struct Encoder {
    wishes: mpsc::Sender<Wish>,
}

struct Wish {
    records: RecordBatch,
    reply: oneshot::Sender<Result<Encoded, Unanswered>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The run ends.
    Ending,
    /// A stage failed, or the records cannot be put together.
    Failed(String),
}

/// What came of the records of a request.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Records that were handed in.
    total: usize,
    /// Those that came through, and the place of each in the request.
    parts: Vec<(RecordBatch, Vec<usize>)>,
    /// Those that were refused; `row` is the place in the request.
    rejected: Vec<Rejected>,
}

impl Encoder {
    /// Puts requests together, and asks through `asks`.
    pub(super) fn start(shape: Shape, stage: &str, asks: mpsc::Sender<Ask>) -> Self {
        let (wishes, mut heard) = mpsc::channel::<Wish>(WAITING);
        let split = Split::new(format!("{stage}/encode"));
        tokio::spawn(async move {
            while let Some(first) = heard.recv().await {
                // Nothing is waited for: who comes while workers are busy goes together.
                let Ok(place) = asks.reserve().await else { return };
                let mut group = vec![first];
                let mut records = group[0].records.num_rows();
                while records < shape.most()
                    && let Ok(wish) = heard.try_recv()
                {
                    records += wish.records.num_rows();
                    group.push(wish);
                }
                drop(place);
                encode_group(&shape, &split, group, &asks).await;
            }
        });
        Self { wishes }
    }

    /// Carries records (`source`, then the columns) through the graph.
    ///
    /// # Errors
    /// When the run ends, or a stage fails.
    pub(super) async fn encode(&self, records: RecordBatch) -> Result<Encoded, Unanswered> {
        let (reply, encoded) = oneshot::channel();
        self.wishes.send(Wish { records, reply }).await.map_err(|_| Unanswered::Ending)?;
        encoded.await.unwrap_or(Err(Unanswered::Ending))
    }
}

/// Sends what was put together on its way; each request hears of its own in the background.
async fn encode_group(shape: &Shape, split: &Arc<Split>, group: Vec<Wish>, asks: &mpsc::Sender<Ask>) {
    let batches = match guarded(|| batches(shape, split, &group)) {
        Ok(batches) => batches,
        // The records of one request must not fail the others.
        Err(_) if group.len() > 1 => {
            for wish in group {
                Box::pin(encode_group(shape, split, vec![wish], asks)).await;
            }
            return;
        }
        Err((_, reason)) => {
            // Who asked may have gone; here and below.
            let failed = Unanswered::Failed(reason);
            group.into_iter().for_each(|wish| drop(wish.reply.send(Err(failed.clone()))));
            return;
        }
    };
    let mut answers = Vec::new();
    let mut start = 0;
    for batch in batches {
        let len = usize::try_from(batch.batch.provenance.len()).unwrap_or(usize::MAX);
        let (reply, answer) = oneshot::channel();
        if asks.send(Ask { batch, reply }).await.is_err() {
            return;
        }
        answers.push((start, answer));
        start += len;
    }
    tokio::spawn(async move {
        let mut sums: Vec<Encoded> = group.iter().map(Encoded::of).collect();
        let mut failed = None;
        for (start, answer) in answers {
            match answer.await {
                Ok(Ok(answered)) => share(&mut sums, start, &answered),
                Ok(Err(reason)) => failed = Some(Unanswered::Failed(reason)),
                Err(_) => failed = Some(Unanswered::Ending),
            }
        }
        for (wish, sum) in group.into_iter().zip(sums) {
            drop(wish.reply.send(failed.clone().map_or(Ok(sum), Err)));
        }
    });
}

/// The records of all requests, in batches of the size that the source's may have.
fn batches(shape: &Shape, split: &Arc<Split>, group: &[Wish]) -> Result<Vec<SourceBatch>, String> {
    let Some(first) = group.first() else { return Ok(Vec::new()) };
    let all = concat_batches(&first.records.schema(), group.iter().map(|wish| &wish.records));
    let all = all.map_err(|error| error.to_string())?;
    match shape {
        Shape::Images(rules) => image_batches(rules, split, &all),
        Shape::Features { schema, cut } => {
            feature_batches(schema, *cut, split, &[(0, all)]).map_err(|error| error.to_string())
        }
    }
}

fn image_batches(rules: &Rules, split: &Arc<Split>, all: &RecordBatch) -> Result<Vec<SourceBatch>, String> {
    let wrong = || "the records have other columns than the source".to_owned();
    let source = all.columns().first().and_then(|column| column.as_string_opt::<i32>()).ok_or_else(wrong)?;
    let image = all.columns().get(1).and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(wrong)?;
    let images: Vec<(&str, &[u8])> = (0..all.num_rows()).map(|at| (source.value(at), image.value(at))).collect();
    rules.batches(split, &images).map_err(|error| error.to_string())
}

/// What came of a batch that begins at the record `start` of all, told to each request by its own records.
fn share(sums: &mut [Encoded], start: usize, answered: &crate::source::Answered) {
    let mut from = 0;
    for sum in sums {
        let to = from + sum.total;
        let own = |ordinal: u32| (start + ordinal as usize).checked_sub(from).filter(|at| *at < to - from);
        let origin = &answered.batch.origin;
        let first = origin.partition_point(|&ordinal| start + (ordinal as usize) < from);
        let last = origin.partition_point(|&ordinal| start + (ordinal as usize) < to);
        if first < last {
            let places = origin[first..last].iter().filter_map(|&ordinal| own(ordinal)).collect();
            sum.parts.push((answered.batch.records.slice(first, last - first), places));
        }
        for (stage, reject) in &answered.refused {
            if let Some(at) = own(reject.ordinal) {
                let (stage, code, reason) = (stage.to_string(), reject.code.as_str(), reject.reason.to_string());
                sum.rejected.push(Rejected { row: at as u64, stage, code, reason });
            }
        }
        from = to;
    }
}

impl Encoded {
    fn of(wish: &Wish) -> Self {
        Self { total: wish.records.num_rows(), parts: Vec::new(), rejected: Vec::new() }
    }
}

/// How an answer is to look.
pub(super) struct Wanted {
    columns: Option<Vec<String>>,
    arrow: bool,
}

impl Wanted {
    /// By the parameter `columns` and the header `Accept`.
    pub(super) fn new(columns: Option<&str>, accept: &str) -> Self {
        let columns = columns.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect());
        Self { columns, arrow: accept.contains(ARROW_STREAM) }
    }

    /// Writes an answer; returns its `Content-Type` as well.
    ///
    /// # Errors
    /// A column that is not there.
    pub(super) fn write(&self, encoded: &Encoded, refused: &[Refused]) -> Result<(Vec<u8>, &'static str), String> {
        if self.arrow { self.write_arrow(encoded, refused) } else { self.write_json(encoded, refused) }
    }

    /// Places of the columns to answer with: all but images and tensors, where nothing else is asked for.
    fn places(&self, schema: &SchemaRef) -> Result<Vec<usize>, String> {
        let Some(names) = &self.columns else {
            let small = |place: &usize| {
                let field = schema.field(*place);
                let is_image = matches!(field.data_type(), DataType::Binary | DataType::LargeBinary);
                !is_image && (TensorShape::of(field).is_none() || field.extension_type_name().is_none())
            };
            return Ok((0..schema.fields().len()).filter(small).collect());
        };
        let known = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        let place = |name: &String| {
            schema.index_of(name).map_err(|_| format!("there is no column `{name}`; there are: {}", known()))
        };
        names.iter().map(place).collect()
    }

    fn write_json(&self, encoded: &Encoded, refused: &[Refused]) -> Result<(Vec<u8>, &'static str), String> {
        let mut told: Vec<Option<String>> = vec![None; encoded.total];
        for (records, origin) in &encoded.parts {
            let places = self.places(&records.schema())?;
            let chosen = records.project(&places).map_err(|error| error.to_string())?;
            let mut lines = Vec::new();
            let mut writer = LineDelimitedWriter::new(&mut lines);
            writer.write(&chosen).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
            let lines = String::from_utf8(lines).map_err(|error| error.to_string())?;
            for (line, at) in lines.lines().zip(origin) {
                told[*at] = Some(line.to_owned());
            }
        }
        for Rejected { row, stage, code, reason } in &encoded.rejected {
            let text = json!({ "rejected": { "stage": stage, "code": code, "reason": reason } }).to_string();
            if let Some(told) = usize::try_from(*row).ok().and_then(|row| told.get_mut(row)) {
                *told = Some(text);
            }
        }
        let records: Vec<String> =
            told.into_iter().map(|told| told.unwrap_or_else(|| json!({ "dropped": true }).to_string())).collect();
        let refused = serde_json::to_string(refused).map_err(|error| error.to_string())?;
        let text = format!("{{\"records\":[{}],\"refused\":{refused}}}\n", records.join(","));
        Ok((text.into_bytes(), "application/json"))
    }

    /// A stream of those that came through, with their places as the column `record`; the others stand in the metadata of
    /// its schema.
    fn write_arrow(&self, encoded: &Encoded, refused: &[Refused]) -> Result<(Vec<u8>, &'static str), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let Some((first, _)) = encoded.parts.first() else {
            let (body, _) = self.write_json(encoded, refused)?;
            return Ok((body, "application/json"));
        };
        let places = self.places(&first.schema())?;
        let chosen = first.schema().project(&places).map_err(|error| text(&error))?;
        let fields = std::iter::once(Arc::new(Field::new("record", DataType::UInt32, false)));
        let fields: Vec<_> = fields.chain(chosen.fields().iter().cloned()).collect();
        let told = [
            ("rejected".to_owned(), serde_json::to_string(&encoded.rejected).map_err(|error| text(&error))?),
            ("refused".to_owned(), serde_json::to_string(refused).map_err(|error| text(&error))?),
        ];
        let told: HashMap<String, String> = told.into_iter().collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, told));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(|error| text(&error))?;
        for (records, origin) in &encoded.parts {
            let record = origin.iter().map(|&at| u32::try_from(at).unwrap_or(u32::MAX));
            let record: ArrayRef = Arc::new(UInt32Array::from_iter_values(record));
            let columns = places.iter().map(|&place| Arc::clone(records.column(place)));
            let columns = std::iter::once(record).chain(columns).collect();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| text(&error))?;
            writer.write(&batch).map_err(|error| text(&error))?;
        }
        Ok((writer.into_inner().map_err(|error| text(&error))?, ARROW_STREAM))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{Float64Array, StringArray};

    use super::*;
    use crate::source::cut::Cut;
    use crate::source::origin_fields;

    /// A request with one record of a column.
    fn wish(column: ArrayRef) -> (Wish, oneshot::Receiver<Result<Encoded, Unanswered>>) {
        let source: ArrayRef = Arc::new(StringArray::from(vec!["me"]));
        let records = RecordBatch::try_from_iter([("source", source), ("x", column)]).unwrap();
        let (reply, answer) = oneshot::channel();
        (Wish { records, reply }, answer)
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_put_together_fails_alone() {
        let fields = origin_fields().into_iter().chain([Field::new("x", DataType::Float64, false)]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let shape = Shape::Features { schema, cut: Cut { records: 8, bytes: 1 << 20, enough: 8 } };
        let (asks, mut asked) = mpsc::channel(8);
        let (sound, bad) =
            (|| wish(Arc::new(Float64Array::from(vec![1.0]))), wish(Arc::new(StringArray::from(vec!["no number"]))));
        let ((one, _kept), (two, refused), (three, _also)) = (sound(), bad, sound());
        encode_group(&shape, &Split::new("in/encode"), vec![one, two, three], &asks).await;
        drop(asks);
        let mut rows = 0;
        while let Some(ask) = asked.recv().await {
            rows += ask.batch.batch.records.num_rows();
        }
        assert_eq!(rows, 2);
        assert!(matches!(refused.await.unwrap(), Err(Unanswered::Failed(_))));
    }
}
