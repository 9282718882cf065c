//! The reflection of positions outside of an image.

/// The position within `len` samples that a position before or after them reflects, with the edge
/// sample repeated: `c b a | a b c | c b a`. `len` is above 0.
pub(crate) fn reflected(position: isize, len: usize) -> usize {
    let period = 2 * len as isize;
    let folded = position.rem_euclid(period) as usize;
    if folded < len {
        folded
    } else {
        2 * len - 1 - folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_outside_are_reflected_with_the_edge() {
        let positions: Vec<usize> = (-4..8).map(|position| reflected(position, 3)).collect();
        assert_eq!(positions, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert_eq!(reflected(-7, 1), 0);
    }
}
