//! The names of columns that more than one stage uses.

/// The name of the input of a record, such as a file.
pub const SOURCE: &str = "source";
/// The row of a record in its input, counted from 0.
pub const ROW: &str = "row";
/// Encoded images.
pub const IMAGE: &str = "image";
/// The class of a record, from the folder of an image or a file of labels.
pub const LABEL: &str = "label";
/// The reconstruction error of a record.
pub const RECONSTRUCTION_ERROR: &str = "reconstruction_error";
/// The mean over several models of the reconstruction error of a record, relative to the usual error.
pub const ANOMALY_SCORE: &str = "anomaly_score";

/// The columns of a rejects dataset, in addition to [`SOURCE`] and [`ROW`].
pub mod rejects {
    /// The split from which the record was read: `<stage>/...`.
    pub const SPLIT: &str = "split";
    /// The row of the record in the split.
    pub const SPLIT_ROW: &str = "split_row";
    /// The stage that rejected the record.
    pub const STAGE: &str = "stage";
    /// The reject code.
    pub const CODE: &str = "code";
    /// The reason as text.
    pub const REASON: &str = "reason";
    /// The format of [`RECORD`].
    pub const FORMAT: &str = "format";
    /// The original of the record; null if its source had no bytes of it.
    pub const RECORD: &str = "record";
    /// The number of records that the reject represents. Datasets of earlier versions lack it, and
    /// each of their rejects represents one record.
    pub const RECORDS: &str = "records";
}
