//! Decodes the values of JSON columns without loss: Arrow's own decoders truncate `1.5` to 1, and
//! turn `1e400` into infinity.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use arrow::json::{ArrayDecoder, DecoderContext, DecoderFactory, Tape, TapeElement};
use parking_lot::Mutex;

use crate::source::table::text::columns::{ColumnRules, Misfit, parse_column};
use crate::source::table::text::values::integer_text;

/// Makes the decoders of columns of numbers and times.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExactDecoders {
    /// The names of columns whose types are given.
    pub(crate) given: Arc<[String]>,
    /// The value that ended the last decoding.
    pub(crate) misfit: Arc<Mutex<Option<Misfit>>>,
}

impl DecoderFactory for ExactDecoders {
    fn make_default_decoder(
        &self,
        _: &DecoderContext,
        field: &FieldRef,
        _: bool,
    ) -> Result<Option<Box<dyn ArrayDecoder>>, ArrowError> {
        let is_ours = field.data_type().is_numeric() || field.data_type().is_temporal();
        Ok(is_ours.then(|| {
            Box::new(ExactDecoder {
                name: field.name().clone(),
                rules: ColumnRules {
                    data_type: field.data_type().clone(),
                    is_inferred: !self.given.contains(field.name()),
                    decimal: '.',
                },
                misfit: Arc::clone(&self.misfit),
            }) as Box<dyn ArrayDecoder>
        }))
    }
}

/// Decodes the values of one column.
struct ExactDecoder {
    name: String,
    rules: ColumnRules,
    misfit: Arc<Mutex<Option<Misfit>>>,
}

impl ArrayDecoder for ExactDecoder {
    fn decode(&mut self, tape: &Tape<'_>, indices: &[u32]) -> Result<ArrayRef, ArrowError> {
        let is_integer = self.rules.data_type.is_integer();
        let mut owned: Vec<(usize, String)> = Vec::new();
        let mut texts = Vec::with_capacity(indices.len());
        for (position, &index) in indices.iter().enumerate() {
            texts.push(match tape.get(index) {
                TapeElement::Null => None,
                TapeElement::String(text) => Some(tape.get_string(text)),
                TapeElement::Number(text) => {
                    let text = tape.get_string(text);
                    // `3.0` and `3e2` are integers, too.
                    let is_other_notation = is_integer && text.contains(['.', 'e', 'E']);
                    if let Some(integer) = is_other_notation.then(|| integer_text(text)).flatten() {
                        owned.push((position, integer));
                    }
                    Some(text)
                }
                _ => return Err(tape.error(index, &self.rules.data_type.to_string())),
            });
        }
        for (position, integer) in &owned {
            texts[*position] = Some(integer);
        }
        parse_column(&self.name, texts.into_iter(), &self.rules).map_err(|misfit| {
            let reason = misfit.reason.clone();
            *self.misfit.lock() = Some(misfit);
            ArrowError::JsonError(reason)
        })
    }
}
