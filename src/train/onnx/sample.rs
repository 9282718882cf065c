//! The nodes of a code that is a distribution.

use crate::train::layer_spec::LOGVAR_RANGE;
use crate::train::onnx::{OnnxGraphWriter, value_info};
use crate::train::record_shape::RecordShape;

/// The name of the output with the logarithms of the variances.
const LOGVAR: &str = "logvar";

impl OnnxGraphWriter<'_> {
    /// Appends the mean of the code, the first half of the values, as the current value, and the
    /// logarithm of its variance as an output.
    pub(super) fn sample(&mut self, index: usize, code: usize) {
        let axis = self.integers(format!("{index}.axis"), &[1]);
        let [begin, middle] = [0, code].map(|bound| self.bound(index, bound));
        if self.returns_variance {
            let end = self.bound(index, 2 * code);
            let range =
                LOGVAR_RANGE.map(|bound| self.constant(format!("{index}.clip{bound}"), &[bound]));
            let both = self.value.clone();
            let name = format!("{index}.variance");
            self.node("Slice", &name, &[&middle, &end, &axis], vec![]);
            self.node("Clip", LOGVAR, &[&range[0], &range[1]], vec![]);
            let logvar = value_info(LOGVAR, RecordShape::Flat(code));
            self.outputs.push(logvar);
            self.value = both;
        }
        let name = format!("{index}.mean");
        self.node("Slice", &name, &[&begin, &middle, &axis], vec![]);
    }

    fn bound(&mut self, index: usize, value: usize) -> String {
        self.integers(format!("{index}.bound{value}"), &[value as i64])
    }
}
