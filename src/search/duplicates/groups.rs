//! Connected components of rows, which several threads extend at the same time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The groups of rows so far. A row is named by its index among all rows.
pub(super) struct RowGroups {
    /// The parent of each row in the tree of its group. A parent has a smaller index than its
    /// children, so that the root is the first row of the group.
    parents: Vec<AtomicU32>,
    /// The bits of the distance to the nearest other row; infinity without a pair. Distances are not
    /// negative, so that their bits have their order.
    nearest: Vec<AtomicU64>,
}

impl RowGroups {
    /// Each of `rows` rows alone.
    pub(super) fn new(rows: u32) -> Self {
        let infinity = || AtomicU64::new(f64::INFINITY.to_bits());
        Self {
            parents: (0..rows).map(AtomicU32::new).collect(),
            nearest: (0..rows).map(|_| infinity()).collect(),
        }
    }

    /// The first row of the group of a row.
    pub(super) fn first(&self, row: u32) -> u32 {
        let mut row = row;
        loop {
            let parent = self.parents[row as usize].load(Ordering::Relaxed);
            if parent == row {
                return row;
            }
            let above = self.parents[parent as usize].load(Ordering::Relaxed);
            // Shortens the path. If another thread has changed it, its parent is an ancestor, too.
            let _ = self.parents[row as usize].compare_exchange(
                parent,
                above,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            row = above;
        }
    }

    /// Joins the groups of two rows at this distance.
    pub(super) fn join(&self, one: u32, other: u32, distance: f64) {
        for row in [one, other] {
            self.nearest[row as usize].fetch_min(distance.to_bits(), Ordering::Relaxed);
        }
        loop {
            let (one, other) = (self.first(one), self.first(other));
            if one == other {
                return;
            }
            let (first, later) = (one.min(other), one.max(other));
            let joined = self.parents[later as usize].compare_exchange(
                later,
                first,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if joined.is_ok() {
                return;
            }
        }
    }

    /// Whether a pair of rows cannot change the groups: both are in one group, and each of them has
    /// another row at distance 0.
    pub(super) fn is_settled(&self, one: u32, other: u32) -> bool {
        self.nearest(one) == 0.0
            && self.nearest(other) == 0.0
            && self.first(one) == self.first(other)
    }

    /// The distance of a row to the nearest other row of its group; infinity if it is alone.
    pub(super) fn nearest(&self, row: u32) -> f64 {
        f64::from_bits(self.nearest[row as usize].load(Ordering::Relaxed))
    }
}
