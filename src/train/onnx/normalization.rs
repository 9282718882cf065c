//! The nodes of normalizations.

use crate::train::normalization::{NORMALIZATION_EPSILON, Normalization};
use crate::train::onnx::OnnxGraphWriter;
use crate::train::onnx::proto::{AttributeProto, TensorProto};

impl OnnxGraphWriter<'_> {
    /// Appends a normalization in evaluation mode.
    pub(super) fn normalize(&mut self, index: usize, over: Normalization, channels: usize) {
        let epsilon = || vec![AttributeProto::float("epsilon", NORMALIZATION_EPSILON)];
        let output = format!("{index}.normal");
        match (over, self.is_image) {
            (Normalization::Batch, _) => {
                let [scale, bias, mean, variance] = std::array::from_fn(|_| self.learned());
                let inputs = [scale.as_str(), &bias, &mean, &variance];
                self.node("BatchNormalization", &output, &inputs, epsilon());
            }
            (Normalization::Layer, false) => {
                let [scale, bias] = std::array::from_fn(|_| self.learned());
                self.node("LayerNormalization", &output, &[&scale, &bias], epsilon());
            }
            (Normalization::Layer, true) => self.normalize_images(index, channels, epsilon()),
        }
    }

    /// All values of an image have one mean and one variance: those of an instance with one channel.
    /// Height and width may have any size, so the shape is read before.
    fn normalize_images(&mut self, index: usize, channels: usize, epsilon: Vec<AttributeProto>) {
        let name = |role: &str| format!("{index}.{role}");
        let image = self.value.clone();
        self.node("Shape", &name("shape"), &[], vec![]);
        let shape = std::mem::replace(&mut self.value, image);
        let flat = self.integers(name("flat"), &[0, 1, -1]);
        let mut vector = |role: &str, value: f32| {
            let tensor = TensorProto::float(&name(role), &[1], &[value]);
            self.graph.initializer.push(tensor);
            name(role)
        };
        let (one, zero) = (vector("one", 1.0), vector("zero", 0.0));
        self.node("Reshape", &name("row"), &[&flat], vec![]);
        self.node(
            "InstanceNormalization",
            &name("instance"),
            &[&one, &zero],
            epsilon,
        );
        self.node("Reshape", &name("image"), &[&shape], vec![]);
        // One factor and one summand per channel, for all pixels.
        let [scale, bias] = std::array::from_fn(|_| self.learned_as(&[channels, 1, 1]));
        self.node("Mul", &name("scaled"), &[&scale], vec![]);
        self.node("Add", &name("normal"), &[&bias], vec![]);
    }
}
