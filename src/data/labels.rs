//! The classes of records: numbered as they are met, sorted once all are known.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::error::StageError;

/// More values are no classes but something that is measured, or a name of each record.
const MAX_CLASSES: usize = 1 << 16;

/// The classes met so far.
#[derive(Debug, Default)]
pub(super) struct ClassIndex {
    numbers: BTreeMap<String, u32>,
}

impl ClassIndex {
    /// The number of a class.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn number(&mut self, label: &str) -> Result<u32, StageError> {
        if let Some(&number) = self.numbers.get(label) {
            return Ok(number);
        }
        if self.numbers.len() >= MAX_CLASSES {
            let message = format!(
                "the column of labels has more than {MAX_CLASSES} values: they are no classes; name another"
            );
            return Err(StageError::Other(message));
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(label.to_owned(), number);
        Ok(number)
    }

    /// The classes, sorted, by number where all are numbers; and for each number its class's place
    /// among them.
    pub(super) fn sorted(self) -> (Vec<String>, Vec<u32>) {
        let mut all: Vec<(String, u32)> = self.numbers.into_iter().collect();
        let value = |label: &str| label.parse::<f64>().ok().filter(|value| value.is_finite());
        if all.iter().all(|(label, _)| value(label).is_some()) {
            all.sort_by(|(a, _), (b, _)| {
                value(a).unwrap_or(0.0).total_cmp(&value(b).unwrap_or(0.0))
            });
        }
        let mut classes = vec![0; all.len()];
        for (place, (_, number)) in all.iter().enumerate() {
            classes[*number as usize] = u32::try_from(place).unwrap_or(u32::MAX);
        }
        (all.into_iter().map(|(label, _)| label).collect(), classes)
    }
}

/// A column of labels as words: `3` rather than `3.0`, so that a class is the same whatever its
/// column's type.
pub(super) fn class_names(column: &ArrayRef) -> Result<StringArray, StageError> {
    let words = cast(column, &DataType::Utf8)?;
    let words = words.as_string::<i32>();
    let plain = |word: &str| word.strip_suffix(".0").unwrap_or(word).to_owned();
    match column.data_type().is_floating() {
        true => Ok(words.iter().map(|word| word.map(plain)).collect()),
        false => Ok(words.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int8Array};

    use super::*;

    fn sorted(met: &[&str]) -> (Vec<String>, Vec<u32>) {
        let mut labels = ClassIndex::default();
        for label in met {
            labels.number(label).unwrap();
        }
        labels.sorted()
    }

    #[test]
    fn classes_are_sorted_by_number_where_all_are_numbers() {
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
    fn a_class_is_the_same_whatever_the_type_of_its_column() {
        let word = |column: ArrayRef| class_names(&column).unwrap().value(0).to_owned();
        assert_eq!(word(Arc::new(Float64Array::from(vec![3.0]))), "3");
        assert_eq!(word(Arc::new(Int8Array::from(vec![3]))), "3");
        assert_eq!(word(Arc::new(Float64Array::from(vec![0.5]))), "0.5");
        assert_eq!(word(Arc::new(StringArray::from(vec!["v1.0"]))), "v1.0");
        assert_eq!(word(Arc::new(BooleanArray::from(vec![true]))), "true");
        assert!(
            class_names(&(Arc::new(Int8Array::from(vec![None])) as ArrayRef))
                .unwrap()
                .is_null(0)
        );
    }

    #[test]
    fn what_is_measured_is_no_class() {
        let mut labels = ClassIndex::default();
        let number = |value: usize, labels: &mut ClassIndex| labels.number(&value.to_string());
        assert!((0..MAX_CLASSES).all(|value| number(value, &mut labels).is_ok()));
        assert!(
            number(MAX_CLASSES, &mut labels)
                .unwrap_err()
                .to_string()
                .contains("they are no classes")
        );
        assert_eq!(number(7, &mut labels).unwrap(), 7);
    }
}
