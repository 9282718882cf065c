//! The classes of records: numbered in order of occurrence, and sorted at the end of the input.

use std::collections::BTreeMap;

use crate::error::StageError;
use crate::error::code::ErrorCode;

/// Maximum number of classes. A column with more values holds measurements or record names.
const MAX_CLASSES: usize = 1 << 16;

/// The classes found so far, with their numbers.
#[derive(Debug, Default)]
pub(super) struct ClassIndex {
    numbers: BTreeMap<String, u32>,
}

impl ClassIndex {
    /// Returns the number of a class, and assigns the next number to a new class.
    ///
    /// # Errors
    /// Returns an error if there are more than 65,536 classes.
    pub(super) fn number(&mut self, label: &str) -> Result<u32, StageError> {
        if let Some(&number) = self.numbers.get(label) {
            return Ok(number);
        }
        if self.numbers.len() >= MAX_CLASSES {
            let message = format!(
                "the label column has more than {MAX_CLASSES} distinct values; set `label` to a \
                 column of classes"
            );
            return Err(StageError::new(ErrorCode::Training, message));
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(label.to_owned(), number);
        Ok(number)
    }

    /// Returns the sorted classes, and for each class number the index among them. The order is
    /// numeric if all classes are numbers.
    pub(super) fn sorted(self) -> (Vec<String>, Vec<u32>) {
        let mut all: Vec<(String, u32)> = self.numbers.into_iter().collect();
        let value = |label: &str| label.parse::<f64>().ok().filter(|value| value.is_finite());
        if all.iter().all(|(label, _)| value(label).is_some()) {
            all.sort_by(|(a, _), (b, _)| {
                value(a).unwrap_or(0.0).total_cmp(&value(b).unwrap_or(0.0))
            });
        }
        let mut classes = vec![0; all.len()];
        for (class, (_, number)) in all.iter().enumerate() {
            classes[*number as usize] = u32::try_from(class).unwrap_or(u32::MAX);
        }
        (all.into_iter().map(|(label, _)| label).collect(), classes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int8Array, StringArray};

    use super::*;
    use crate::transform::class_names;

    fn sorted(found: &[&str]) -> (Vec<String>, Vec<u32>) {
        let mut labels = ClassIndex::default();
        for label in found {
            labels.number(label).unwrap();
        }
        labels.sorted()
    }

    #[test]
    fn classes_are_sorted_numerically_if_all_are_numbers() {
        assert_eq!(
            sorted(&["10", "9", "10", "-1"]),
            (vec!["-1".into(), "9".into(), "10".into()], vec![2, 1, 0])
        );
        assert_eq!(
            sorted(&["b", "10", "9"]),
            (vec!["10".into(), "9".into(), "b".into()], vec![2, 0, 1])
        );
        assert_eq!(sorted(&[]), (vec![], vec![]));
    }

    #[test]
    fn class_name_does_not_depend_on_column_type() {
        let name = |column: ArrayRef| class_names(&column).unwrap().value(0).to_owned();
        assert_eq!(name(Arc::new(Float64Array::from(vec![3.0]))), "3");
        assert_eq!(name(Arc::new(Int8Array::from(vec![3]))), "3");
        assert_eq!(name(Arc::new(Float64Array::from(vec![0.5]))), "0.5");
        assert_eq!(name(Arc::new(Float64Array::from(vec![-0.0]))), "0");
        let large = 1_i64 << 60;
        assert_eq!(
            name(Arc::new(Float64Array::from(vec![large as f64]))),
            large.to_string()
        );
        assert_eq!(name(Arc::new(StringArray::from(vec!["v1.0"]))), "v1.0");
        assert_eq!(name(Arc::new(BooleanArray::from(vec![true]))), "true");
        assert!(
            class_names(&(Arc::new(Int8Array::from(vec![None])) as ArrayRef))
                .unwrap()
                .is_null(0)
        );
    }

    #[test]
    fn class_beyond_maximum_is_refused() {
        let mut labels = ClassIndex::default();
        let number = |value: usize, index: &mut ClassIndex| index.number(&value.to_string());
        assert!((0..MAX_CLASSES).all(|value| number(value, &mut labels).is_ok()));
        assert_eq!(
            number(MAX_CLASSES, &mut labels).unwrap_err().to_string(),
            "the label column has more than 65536 distinct values; set `label` to a column of \
             classes"
        );
        assert_eq!(number(7, &mut labels).unwrap(), 7);
    }
}
