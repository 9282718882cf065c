//! The formats in which originals are stored.

/// The format in which the original of a rejected record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalFormat {
    /// An encoded image, unchanged from its file.
    Image,
    /// A line of text that failed to parse.
    Line,
    /// A JSON object with a value that does not fit the type of its column.
    Json,
    /// A record of delimited text with a value that does not fit the type of its column, after a
    /// line that describes its columns as JSON.
    Csv,
    /// All columns of the source, as an Arrow IPC stream of one row.
    Arrow,
    /// A reference to an image file that could not be read, as JSON.
    File,
}

impl OriginalFormat {
    /// The value in the column [`FORMAT`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Line => "line",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::File => "file",
        }
    }
}
