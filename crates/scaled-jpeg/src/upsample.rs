//! Rows of components with the width of the image.
//!
//! Halved columns and rows are interpolated with the weights 3/4 and 1/4, as libjpeg does ("fancy
//! upsampling"); other factors repeat samples.

/// The relation of a component to the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio {
    /// The numbers of columns of the image and of the component that cover the same width.
    pub(crate) across: (usize, usize),
    /// The numbers of rows of the image and of the component that cover the same height.
    pub(crate) down: (usize, usize),
    /// Whether halved columns and rows are interpolated.
    pub(crate) is_smooth: bool,
}

/// The rows of a component that a row of the image depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceRows {
    /// The nearest row.
    pub(crate) near: usize,
    /// The second one; equal to `near` if there is none.
    pub(crate) far: usize,
    /// Whether `far` is above `near`.
    pub(crate) is_above: bool,
}

impl Ratio {
    /// The rows of a component with `rows` rows for the row `y` of the image.
    #[inline(always)]
    pub(crate) fn rows(&self, y: usize, rows: usize) -> SourceRows {
        let near = (y * self.down.1 / self.down.0).min(rows - 1);
        let is_above = y.is_multiple_of(2);
        let far = match is_above {
            _ if !self.is_smooth || self.down != (2, 1) => near,
            true => near.saturating_sub(1),
            false => (near + 1).min(rows - 1),
        };
        SourceRows {
            near,
            far,
            is_above,
        }
    }

    /// Whether a row of the component is one of the image.
    #[inline(always)]
    pub(crate) fn is_identity(&self) -> bool {
        self.across.0 == self.across.1 && self.down.0 == self.down.1
    }

    /// Writes the row of the image. `near` and `far` have as many samples as the component.
    #[inline(always)]
    pub(crate) fn upsample(&self, near: &[u8], far: &[u8], is_above: bool, out: &mut [u8]) {
        match (self.is_smooth, self.across, self.down) {
            (true, (2, 1), (2, 1)) => both(near, far, out),
            (true, (2, 1), (1, 1)) => columns(near, out),
            (true, (1, 1), (2, 1)) => rows(near, far, is_above, out),
            (_, (2, 1), _) => {
                for (pair, value) in out.chunks_mut(2).zip(near) {
                    pair.fill(*value);
                }
            }
            (_, (count, own), _) => {
                for (x, value) in out.iter_mut().enumerate() {
                    *value = near[(x * own / count).min(near.len() - 1)];
                }
            }
        }
    }
}

/// Interpolates rows.
#[inline(always)]
fn rows(near: &[u8], far: &[u8], is_above: bool, out: &mut [u8]) {
    let bias = if is_above { 1 } else { 2 };
    for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
        *out = ((u16::from(*near) * 3 + u16::from(*far) + bias) >> 2) as u8;
    }
}

/// Interpolates columns.
#[inline(always)]
fn columns(near: &[u8], out: &mut [u8]) {
    let last = near.len() - 1;
    let value = |at: usize, other: usize, bias: u16| {
        ((u16::from(near[at]) * 3 + u16::from(near[other]) + bias) >> 2) as u8
    };
    let (pairs, odd) = out.as_chunks_mut::<2>();
    let middle = pairs.len().min(last);
    for (window, pair) in near.windows(3).zip(pairs.iter_mut().take(middle).skip(1)) {
        let center = u16::from(window[1]) * 3;
        pair[0] = ((center + u16::from(window[0]) + 1) >> 2) as u8;
        pair[1] = ((center + u16::from(window[2]) + 2) >> 2) as u8;
    }
    if let Some(first) = pairs.first_mut() {
        *first = [near[0], value(0, 1.min(last), 2)];
    }
    if let Some(end) = pairs.get_mut(last).filter(|_| last > 0) {
        *end = [value(last, last - 1, 1), near[last]];
    }
    if let [single] = odd {
        *single = if last == 0 {
            near[0]
        } else {
            value(last, last - 1, 1)
        };
    }
}

/// Interpolates columns and rows.
#[inline(always)]
fn both(near: &[u8], far: &[u8], out: &mut [u8]) {
    let far = &far[..near.len()];
    let sum = |at: usize| u16::from(near[at]) * 3 + u16::from(far[at]);
    let last = near.len() - 1;
    let (pairs, odd) = out.as_chunks_mut::<2>();
    let middle = pairs.len().min(last);
    let windows = near.windows(3).zip(far.windows(3));
    for ((near, far), pair) in windows.zip(pairs.iter_mut().take(middle).skip(1)) {
        let sum = |at: usize| u16::from(near[at]) * 3 + u16::from(far[at]);
        let center = sum(1) * 3;
        pair[0] = ((center + sum(0) + 8) >> 4) as u8;
        pair[1] = ((center + sum(2) + 7) >> 4) as u8;
    }
    let edge = |at: usize, bias: u16| ((sum(at) * 4 + bias) >> 4) as u8;
    let value = |at: usize, other: usize, bias: u16| ((sum(at) * 3 + sum(other) + bias) >> 4) as u8;
    if let Some(first) = pairs.first_mut() {
        *first = [
            edge(0, 8),
            if last == 0 {
                edge(0, 7)
            } else {
                value(0, 1, 7)
            },
        ];
    }
    if let Some(end) = pairs.get_mut(last).filter(|_| last > 0) {
        *end = [value(last, last - 1, 8), edge(last, 7)];
    }
    if let [single] = odd {
        *single = if last == 0 {
            edge(0, 8)
        } else {
            value(last, last - 1, 8)
        };
    }
}
