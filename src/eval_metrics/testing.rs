//! Sample data for the tests of metrics, which other languages can compute exactly.

/// Returns `rows` rows of three clusters in 6 dimensions from row `start` on, with their labels.
/// All values are small multiples of 1/64 and thus exact.
pub(super) fn clouds(rows: usize, start: usize) -> (Vec<f32>, Vec<u32>) {
    let label = |row: usize| (row % 3) as u32;
    let value = |row: usize, column: usize| {
        let noise = ((row + 1) * (column + 3) * 7919 + row * row * 31 + column * 17) % 257;
        let center = if column % 3 == row % 3 { 128 } else { 0 };
        (noise as f32 * (1 + column) as f32 + center as f32) / 64.0
    };
    let values = (start..start + rows).flat_map(|row| (0..6).map(move |column| value(row, column)));
    (values.collect(), (start..start + rows).map(label).collect())
}
