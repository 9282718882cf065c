//! The shape of a record between two layers.

/// The shape of one record between two steps. Height and width are unknown if images have any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordShape {
    /// A number of values.
    Flat(usize),
    /// An image: its channels, and its height and width if they are fixed.
    Planes {
        /// Channels.
        channels: usize,
        /// Height and width.
        size: Option<(usize, usize)>,
    },
}

impl RecordShape {
    /// Returns the number of values of a record if it is fixed.
    pub fn len(self) -> Option<usize> {
        match self {
            Self::Flat(len) => Some(len),
            Self::Planes { channels, size } => {
                size.map(|(height, width)| channels * height * width)
            }
        }
    }
}

impl std::fmt::Display for RecordShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flat(len) => write!(f, "[{len}]"),
            Self::Planes {
                channels,
                size: Some((height, width)),
            } => write!(f, "[{channels}, {height}, {width}]"),
            Self::Planes {
                channels,
                size: None,
            } => write!(f, "[{channels}, height, width]"),
        }
    }
}
