//! Buffers of values that start at a cache line.

use std::ops::{Deref, DerefMut};

/// Number of values of a cache line.
const LINE: usize = 16;

/// A buffer whose first value lies at the start of a cache line, which is also the alignment of the
/// largest SIMD registers: an access to two lines takes twice the time.
#[derive(Debug, Default)]
pub(crate) struct AlignedValues {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl AlignedValues {
    /// Sets the number of values. All values are unspecified afterwards.
    pub fn reset(&mut self, len: usize) {
        if self.values.len() < len + LINE {
            // The values would be copied if the buffer were not empty.
            self.values.clear();
            self.values.resize(len + LINE, 0.0);
            self.start = self
                .values
                .as_ptr()
                .align_offset(LINE * size_of::<f32>())
                .min(LINE);
        }
        self.len = len;
    }

    /// Replaces all values.
    pub fn copy_from(&mut self, values: &[f32]) {
        self.reset(values.len());
        self.copy_from_slice(values);
    }
}

impl Deref for AlignedValues {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedValues {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_start_at_a_cache_line_after_each_reset() {
        let mut values = AlignedValues::default();
        assert!(values.is_empty());
        for len in [3, 100, 7, 5000, 0, 5001] {
            values.reset(len);
            assert_eq!(values.len(), len);
            assert_eq!(values.as_ptr().align_offset(64), 0, "{len}");
            values.fill(1.0);
        }
        values.copy_from(&[1.0, 2.0]);
        assert_eq!(*values, [1.0, 2.0]);
    }
}
