//! Unit tests of the module `batch`.

#![allow(clippy::unwrap_used)]
use arrow::array::{ArrayRef, Int64Array};

use super::*;
use crate::batch::provenance::{Split, SplitRows};
use crate::batch::reject::{RejectCode, rejected_records};

fn batch(values: std::ops::Range<i64>) -> Batch {
    let rows = u64::try_from(values.start).unwrap()..u64::try_from(values.end).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    let records = RecordBatch::try_from_iter([("v", column)]).unwrap();
    Batch::new(records, Provenance::rows(Split::new("s"), rows))
}

#[test]
fn filtered_record_keeps_its_identity() {
    let mask = BooleanArray::from(vec![Some(false), Some(true), None, Some(true)]);
    let kept = batch(10..14).filter(&mask).unwrap();
    assert_eq!(kept.row_ordinals, [1, 3]);
    assert_eq!(
        kept.provenance
            .row(kept.row_ordinals[1])
            .map(|(_, row)| row),
        Some(13)
    );
    assert_eq!(kept.provenance.len(), 4);
}

#[test]
fn batch_is_split_between_source_rows() {
    // Two records of row 0, none of rows 1 and 4, and a second record of row 2 from a later
    // branch.
    let full = Batch {
        row_ordinals: vec![0, 0, 2, 3, 5, 2],
        ..batch(10..16)
    };
    let split = |records, at_least_one| {
        let (first, rest) = full.split_at_records(records, at_least_one).unwrap();
        let rows = |batch: &Batch| {
            batch
                .provenance
                .ranges()
                .first()
                .map(|range| range.rows.clone())
        };
        assert_eq!(first.provenance.len() + rest.provenance.len(), 6);
        (
            first.row_ordinals.clone(),
            rows(&first),
            rest.row_ordinals.clone(),
            rows(&rest),
        )
    };
    assert_eq!(
        split(3, false),
        (vec![0, 0], Some(10..12), vec![0, 1, 3, 0], Some(12..16))
    );
    assert_eq!(
        split(4, false),
        (vec![0, 0, 2, 2], Some(10..13), vec![0, 2], Some(13..16))
    );
    assert_eq!(
        split(1, false),
        (vec![], None, vec![0, 0, 2, 3, 5, 2], Some(10..16))
    );
    assert_eq!(
        split(1, true),
        (vec![0, 0], Some(10..11), vec![1, 2, 4, 1], Some(11..16))
    );
    assert_eq!(
        split(6, true),
        (vec![0, 0, 2, 3, 5, 2], Some(10..16), vec![], None)
    );
    let (_, rest) = full.split_at_records(4, false).unwrap();
    assert_eq!(
        rest.records.column(0).as_ref(),
        &Int64Array::from(vec![13, 14])
    );
}

#[test]
fn ordinals_are_found_in_their_ranges() {
    let (a, b) = (Split::new("a"), Split::new("b"));
    let range = |split: &Arc<Split>, rows: Range<u64>| SplitRows {
        split: Arc::clone(split),
        rows,
    };
    let all = Provenance::new(vec![range(&a, 5..7), range(&b, 0..0), range(&b, 9..10)]);
    let row = |ordinal| all.row(ordinal).map(|(split, row)| (split.name(), row));
    assert_eq!(
        (0..4).map(row).collect::<Vec<_>>(),
        [Some(("a", 5)), Some(("a", 6)), Some(("b", 9)), None]
    );
    assert_eq!((all.len(), Provenance::default().row(0)), (3, None));
}

#[test]
fn row_of_a_part_has_the_identity_of_its_row_in_the_whole() {
    let whole = Provenance::rows(Split::new("in/listing-0"), 0..10);
    let part = Split::part_of("in/listing-0", vec![1, 4, 9], "in/listing-0/part");
    let part = Provenance::rows(part, 1..3);
    for (ordinal, row) in [(0, 4), (1, 9)] {
        assert_eq!(part.seed(ordinal, 7), whole.seed(row, 7));
        assert_eq!(part.identity(ordinal), whole.identity(row));
    }
    assert_eq!(
        part.row(0).map(|(split, row)| (split.name(), row)),
        Some(("in/listing-0/part", 1))
    );
    assert_eq!(part.identity(2), None);
}

#[test]
fn seed_depends_only_on_split_row_and_salt() {
    let (full, part) = (batch(0..8).provenance, batch(5..8).provenance);
    assert_eq!(full.seed(6, 1), part.seed(1, 1));
    assert_ne!(full.seed(6, 1), full.seed(6, 2));
    assert_ne!(full.seed(6, 1), full.seed(5, 1));
}

#[test]
fn sliced_source_batch_keeps_rejects_with_their_rows() {
    let mut full = SourceBatch {
        batch: batch(0..6),
        rejects: Vec::new(),
        pixels: 600,
    };
    // Row 2 could not be read: five records represent six rows.
    full.batch.records = full.batch.records.slice(0, 5);
    full.batch.row_ordinals = vec![0, 1, 3, 4, 5];
    full.rejects
        .push(Reject::new(2, RejectCode::Malformed, "bad"));
    let part = full.slice(2..4);
    assert_eq!(part.batch.row_ordinals, [1]);
    assert_eq!(part.batch.records.num_rows(), 1);
    assert_eq!(
        part.rejects
            .iter()
            .map(|reject| reject.ordinal)
            .collect::<Vec<_>>(),
        [0]
    );
    assert_eq!((part.batch.provenance.len(), part.pixels), (2, 200));
}

#[test]
fn reject_of_several_rows_is_cut_with_its_batch() {
    let empty = batch(0..6).records.slice(0, 0);
    let provenance = Provenance::rows(Split::new("s"), 100..1100).into();
    let source = Some(("a.parquet".to_owned(), 100));
    let uncut = Reject {
        rows: 1000,
        records: 1000,
        source,
        ..Reject::new(0, RejectCode::Malformed, "bad")
    };
    let full = SourceBatch {
        batch: Batch {
            records: empty,
            row_ordinals: Vec::new(),
            provenance,
        },
        rejects: vec![uncut],
        pixels: 0,
    };
    let cut = [0..250, 250..999, 999..1000].map(|part| full.slice(part).rejects.remove(0));
    assert_eq!(
        cut.each_ref().map(|reject| (reject.ordinal, reject.rows)),
        [(0, 250), (0, 749), (0, 1)]
    );
    assert_eq!(
        cut.each_ref()
            .map(|reject| reject.source.as_ref().unwrap().1),
        [100, 350, 1099]
    );
    assert_eq!(rejected_records(&cut), 1000);
}

#[test]
fn reject_of_one_row_keeps_its_records_and_is_not_cut() {
    let mut full = SourceBatch {
        batch: batch(0..2),
        rejects: Vec::new(),
        pixels: 0,
    };
    full.batch = full.batch.rows(0..0);
    full.rejects.push(Reject {
        records: 500,
        ..Reject::new(0, RejectCode::Unreadable, "no bytes")
    });
    let cut = [0..1, 1..2].map(|part| rejected_records(&full.slice(part).rejects));
    assert_eq!(cut, [500, 0]);
}
