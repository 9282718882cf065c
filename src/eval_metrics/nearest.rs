//! The nearest of many items, by their distances.

use std::cmp::Ordering;

/// The `k` items with the smallest distances, in ascending order. Of equal distances, the smaller
/// item precedes, so that the result does not depend on the order in which items are added.
#[derive(Debug, Clone)]
pub(crate) struct Nearest<T> {
    k: usize,
    items: Vec<(f64, T)>,
}

impl<T: Ord + Copy> Nearest<T> {
    /// Creates a list of at most `k` items.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            items: Vec::new(),
        }
    }

    /// Adds an item, which is dropped if `k` others precede it.
    pub fn add(&mut self, distance: f64, item: T) {
        let order = |other: &(f64, T)| other.0.total_cmp(&distance).then(other.1.cmp(&item));
        if self.items.len() >= self.k
            && self
                .items
                .last()
                .is_none_or(|last| order(last) != Ordering::Greater)
        {
            return;
        }
        let index = self
            .items
            .partition_point(|other| order(other) == Ordering::Less);
        self.items.insert(index, (distance, item));
        self.items.truncate(self.k);
    }

    /// Adds the items of another list.
    pub fn merge(&mut self, other: Self) {
        for (distance, item) in other.items {
            self.add(distance, item);
        }
    }

    /// The items with their distances, nearest first.
    pub fn items(&self) -> &[(f64, T)] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_distances_stay_in_any_order_of_addition() {
        let added = [(2.0, 0), (1.0, 7), (3.0, 1), (1.0, 3), (0.5, 9), (2.0, 2)];
        let expected = [(0.5, 9), (1.0, 3), (1.0, 7), (2.0, 0)];
        for turn in 0..added.len() {
            let mut parts = [Nearest::new(4), Nearest::new(4)];
            for (index, &(distance, item)) in added.iter().cycle().skip(turn).take(6).enumerate() {
                parts[index % 2].add(distance, item);
            }
            let [mut nearest, other] = parts;
            nearest.merge(other);
            assert_eq!(nearest.items(), expected);
        }
        let mut none = Nearest::new(0);
        none.add(1.0, 1);
        assert_eq!(none.items(), []);
    }
}
