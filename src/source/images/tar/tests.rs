//! Tests of the source `tar`: members, keys, truncated archives and data behind an end mark.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use proptest::prelude::*;
use serde_json::json;
use tar::{Builder, EntryType, Header};
use tokio_stream::StreamExt;

use super::*;
use crate::batch::SourceBatch;
use crate::coverage::Coverage;
use crate::plan_context::PipelineLimits;
use crate::registry::find;
use crate::source::images::tar::entry::key;
use crate::source::registry::KINDS;
use crate::units::ByteSize;

const PIXEL: &[u8] = b"P6 1 1 255\nrgb";

fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn plan_shards(folder: &Path, records: u32) -> Box<dyn Source> {
    let limits = PipelineLimits {
        pixels: 1000,
        record_bytes: ByteSize(1000),
        memory: None,
    };
    let context = PlanContext::new(BTreeMap::new(), limits);
    let plan = find(KINDS, "tar", "source").unwrap().plan;
    let batch = serde_json::from_value(json!({ "records": records })).unwrap();
    plan("in", json!({ "path": folder }), batch, &context)
        .unwrap()
        .stage
}

fn read(folder: &Path, records: u32, progress: &ResumeState) -> Vec<SourceBatch> {
    collect(plan_shards(folder, records).open(progress).unwrap())
}

fn collect(opened: SourceHandle) -> Vec<SourceBatch> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batches: Result<Vec<_>, _> = runtime.block_on(opened.batches.collect());
    batches.unwrap()
}

fn read_one(shard: &[u8]) -> Vec<SourceBatch> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.tar"), shard).unwrap();
    read(folder.path(), 100, &ResumeState::default())
}

fn texts(batch: &SourceBatch, column: usize) -> Vec<&str> {
    batch
        .batch
        .records
        .column(column)
        .as_string::<i32>()
        .iter()
        .flatten()
        .collect()
}

#[test]
fn archive_cut_between_members_is_one_truncated_reject() {
    let archive = shard(&[("a.ppm", PIXEL), ("b.ppm", PIXEL)]);
    let read_prefix = |length: usize| {
        let batches = read_one(&archive[..length]);
        let rows: usize = batches
            .iter()
            .map(|batch| batch.batch.records.num_rows())
            .sum();
        let codes = batches
            .iter()
            .flat_map(|batch| &batch.rejects)
            .map(|reject| reject.code)
            .collect::<Vec<_>>();
        (rows, codes)
    };
    assert_eq!(read_prefix(archive.len()), (2, vec![]));
    assert_eq!(
        read_prefix(2 * 1024 + 1024),
        (2, vec![]),
        "two blocks of zeros are enough"
    );
    for (length, rows) in [(2 * 1024, 2), (2 * 1024 - 100, 2), (1024, 1)] {
        assert_eq!(
            read_prefix(length),
            (rows, vec![RejectCode::Truncated]),
            "{length} bytes"
        );
    }
}

#[test]
fn members_behind_an_end_mark_are_one_reject() {
    let archive = shard(&[("a.ppm", PIXEL), ("b.ppm", PIXEL), ("c.ppm", PIXEL)]);
    let mut zeroed = archive.clone();
    zeroed[1024..1536].fill(0);
    let twice = [archive.clone(), archive.clone()].concat();
    for (bytes, rows) in [(zeroed, 1), (twice, 3)] {
        let batches = read_one(&bytes);
        let read: usize = batches
            .iter()
            .map(|batch| batch.batch.records.num_rows())
            .sum();
        let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
        assert_eq!((read, rejects.len()), (rows, 1));
        assert_eq!(rejects[0].code, RejectCode::Malformed);
    }
}

#[test]
fn image_has_shard_member_and_key_and_others_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}/deep.seg.PNG", "d".repeat(150));
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::write(
        folder.path().join("b/1.tar"),
        shard(&[("x/a.jpg", PIXEL), ("x/a.json", b"{}"), (&long, PIXEL)]),
    )
    .unwrap();
    fs::write(folder.path().join("a.tar"), shard(&[("c.ppm", b"")])).unwrap();
    let batches = read(folder.path(), 100, &ResumeState::default());
    assert_eq!(texts(&batches[0], 0), ["a.tar/c.ppm"]);
    assert_eq!(
        texts(&batches[1], 0),
        ["b/1.tar/x/a.jpg", &format!("b/1.tar/{long}")]
    );
    assert_eq!(
        texts(&batches[1], 3),
        ["x/a", long.strip_suffix(".seg.PNG").unwrap()]
    );
    assert_eq!(
        batches[1]
            .batch
            .records
            .column(1)
            .as_primitive::<UInt64Type>()
            .values(),
        &[0, 1]
    );
    assert_eq!(
        batches[1]
            .batch
            .records
            .column(2)
            .as_binary::<i32>()
            .value(1),
        PIXEL
    );
    assert_eq!(batches[1].pixels, 2);
    assert!(
        batches[1].batch.provenance.ranges()[0]
            .split
            .name()
            .starts_with("in/b/1.tar:")
    );
}

#[test]
fn broken_archive_is_read_up_to_the_damage_with_one_reject() {
    let archive = shard(&[("a.jpg", PIXEL), ("b.jpg", PIXEL), ("c.json", &[7; 2000])]);
    let mut mangled = archive.clone();
    mangled[1024 + 10] ^= 1;
    for (bytes, kept) in [
        (&archive[..1024 + 5], 1),
        (&archive[..1024 + 515], 1),
        (&mangled[..], 1),
        (&archive[..3000], 2),
    ] {
        let batches = read_one(bytes);
        assert_eq!(
            (batches.len(), batches[0].batch.records.num_rows()),
            (1, kept)
        );
        let reject = &batches[0].rejects[0];
        assert_eq!(
            (reject.ordinal as usize, reject.code),
            (kept, RejectCode::Malformed)
        );
        let images = if kept == 1 { "image" } else { "images" };
        assert!(
            reject
                .reason
                .starts_with(&format!("s.tar: broken after {kept} {images}; ")),
            "{}",
            reject.reason
        );
        assert_eq!(batches[0].batch.provenance.len(), kept as u64 + 1);
    }
    assert_eq!(read_one(b"not an archive").len(), 1);
    assert_eq!(read_one(b"")[0].rejects[0].code, RejectCode::Truncated);
}

proptest! {
    #[test]
    fn damaged_archive_does_not_end_the_run(offset in 0usize..8192, byte: u8, cut in 0usize..9000) {
        let long = format!("{}/b.jpg", "d".repeat(150));
        let mut bytes = shard(&[
            ("a.jpg", PIXEL),
            (&long, PIXEL),
            ("c.json", b"{}"),
            ("d.jpg", PIXEL),
        ]);
        bytes.truncate(cut.max(1));
        if let Some(damaged) = bytes.get_mut(offset) {
            *damaged = byte;
        }
        // A header is only read if its checksum is right.
        for header in bytes
            .chunks_exact_mut(512)
            .filter(|block| block[257..].starts_with(b"ustar"))
        {
            let mut valid_header = Header::new_gnu();
            valid_header.as_mut_bytes().copy_from_slice(header);
            valid_header.set_cksum();
            header.copy_from_slice(valid_header.as_bytes());
        }
        let batches = read_one(&bytes);
        prop_assert!(batches.iter().map(|batch| batch.rejects.len()).sum::<usize>() <= 3);
    }
}

#[test]
fn too_large_member_is_rejected_and_the_rest_is_read() {
    let batches = read_one(&shard(&[("a.jpg", &[0; 1001]), ("b.jpg", PIXEL)]));
    assert_eq!(
        (batches[0].rejects[0].ordinal, batches[0].rejects[0].code),
        (0, RejectCode::TooLarge)
    );
    assert_eq!(texts(&batches[0], 0), ["s.tar/b.jpg"]);
}

#[test]
fn further_images_are_rows_of_a_second_split() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a.jfif", "b.jpg", "c.JPE", "d.json", "e.jpg", "f.apng", "g"];
    let archive = shard(&names.map(|name| (name, PIXEL)));
    fs::write(folder.path().join("s.tar"), &archive).unwrap();
    let batches = read(folder.path(), 2, &ResumeState::default());
    let sources: Vec<_> = batches.iter().flat_map(|batch| texts(batch, 0)).collect();
    assert_eq!(
        sources,
        ["b.jpg", "e.jpg", "a.jfif", "c.JPE", "f.apng"].map(|name| format!("s.tar/{name}"))
    );
    // An output of a version that did not read further images has only the first split.
    let mut done = Coverage::default();
    done.insert(&batches[0].batch.provenance);
    let again = read(
        folder.path(),
        2,
        &ResumeState {
            sinks: Arc::new(vec![done.clone()]),
            state: None,
        },
    );
    let rows = |sent: &[SourceBatch]| {
        sent.iter()
            .map(|b| b.batch.provenance.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&again), rows(&batches[1..]));
    batches
        .iter()
        .for_each(|batch| done.insert(&batch.batch.provenance));
    assert!(
        read(
            folder.path(),
            2,
            &ResumeState {
                sinks: Arc::new(vec![done]),
                state: None
            }
        )
        .is_empty()
    );
    // The broken part is one reject, in the first pass.
    fs::write(
        folder.path().join("s.tar"),
        &archive[..archive.len() - 1024],
    )
    .unwrap();
    let codes = read(folder.path(), 100, &ResumeState::default())
        .into_iter()
        .flat_map(|batch| batch.rejects);
    assert_eq!(
        codes.map(|reject| reject.code).collect::<Vec<_>>(),
        [RejectCode::Truncated]
    );
}

#[test]
fn links_sparse_members_and_other_files_are_skipped_and_counted() {
    let mut builder = Builder::new(Vec::new());
    let mut link = Header::new_gnu();
    link.set_size(0);
    link.set_entry_type(EntryType::Symlink);
    builder
        .append_link(&mut link, "link.jpg", "/etc/passwd")
        .unwrap();
    builder
        .append_pax_extensions([("GNU.sparse.major", &b"1"[..])])
        .unwrap();
    let mut header = Header::new_ustar();
    header.set_size(PIXEL.len() as u64);
    builder
        .append_data(&mut header, "sparse.jpg", PIXEL)
        .unwrap();
    builder
        .append_pax_extensions([("path", "from pax.jpg".as_bytes())])
        .unwrap();
    builder
        .append_data(&mut header, "short.jpg", PIXEL)
        .unwrap();
    builder
        .append_data(&mut header, "labels.JSON", PIXEL)
        .unwrap();
    header.set_entry_type(EntryType::Directory);
    builder
        .append_data(&mut header, "folder/", &b""[..])
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.tar"), builder.into_inner().unwrap()).unwrap();
    fs::write(folder.path().join("notes.txt"), b"").unwrap();
    let source = plan_shards(folder.path(), 100);
    let skipped_files = source.skipped_files().unwrap();
    let batches = collect(source.open(&ResumeState::default()).unwrap());
    assert_eq!(texts(&batches[0], 0), ["s.tar/from pax.jpg"]);
    assert_eq!(
        skipped_files.get().to_string(),
        "1 .json, 1 .txt, 1 link in an archive, 1 sparse file in an archive"
    );
}

#[test]
fn name_of_several_megabytes_is_not_read_into_memory() {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(4 << 20);
    header.set_cksum();
    builder.append(&header, &vec![b'x'; 4 << 20][..]).unwrap();
    let batches = read_one(&builder.into_inner().unwrap());
    assert!(
        batches[0].rejects[0]
            .reason
            .contains("more than 1048576 bytes of names and headers before a member"),
        "{}",
        batches[0].rejects[0].reason
    );
}

#[test]
fn later_run_skips_committed_rows_and_cuts_the_same_batches() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"];
    fs::write(
        folder.path().join("s.tar"),
        shard(&names.map(|name| (name, PIXEL))),
    )
    .unwrap();
    let first = read(folder.path(), 2, &ResumeState::default());
    let mut done = Coverage::default();
    done.insert(&first[0].batch.provenance);
    let second = read(
        folder.path(),
        2,
        &ResumeState {
            sinks: Arc::new(vec![done]),
            state: None,
        },
    );
    let rows = |batches: &[SourceBatch]| {
        batches
            .iter()
            .map(|b| b.batch.provenance.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&second), rows(&first[1..]));
    assert_eq!(second[0].batch.records, first[1].batch.records);
}

#[test]
fn compressed_shards_among_others_are_rejects() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("0.tar", b"\x1f\x8b\x08".to_vec()),
        ("2.tar", b"BZh91AY&SY".to_vec()),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    for name in ["1.tar", "3.tar"] {
        fs::write(folder.path().join(name), shard(&[("a.jpg", PIXEL)])).unwrap();
    }
    let batches = read(folder.path(), 100, &ResumeState::default());
    let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
    let codes: Vec<_> = rejects.iter().map(|reject| reject.code).collect();
    assert_eq!(codes, [RejectCode::Unsupported; 2]);
    assert_eq!(
        rejects[1].reason,
        "2.tar: is compressed, but only plain tar files and those whose names end with `.gz`, \
         `.tgz` or `.zst` can be read; unpack it first (`bunzip2 2.tar`)"
    );
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.batch.records.num_rows())
            .sum::<usize>(),
        2
    );
    let mut done = Coverage::default();
    batches
        .iter()
        .for_each(|batch| done.insert(&batch.batch.provenance));
    let again = read(
        folder.path(),
        100,
        &ResumeState {
            sinks: Arc::new(vec![done]),
            state: None,
        },
    );
    assert!(again.is_empty(), "compressed shards are rejected once");
}

#[test]
fn compressed_shards_have_the_images_of_plain_ones() {
    let plain = shard(&[
        ("a.jpg", b"one"),
        ("notes.txt", &[7; 3000]),
        ("b.png", b"two"),
    ]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("a.tar", &plain);
    write("b.tar.gz", &gzip(&plain));
    write("c.tgz", &gzip(&plain[..3000]));
    write("d.tar.zst", &zstd::encode_all(plain.as_slice(), 3).unwrap());
    write("e.tar.gz", &gzip(&[plain.as_slice(), b"more"].concat()));
    let batches = read(folder.path(), 100, &ResumeState::default());
    let names: Vec<&str> = batches.iter().flat_map(|batch| texts(batch, 0)).collect();
    let expected = ["a.tar", "b.tar.gz", "c.tgz", "d.tar.zst", "e.tar.gz"].map(|name| match name {
        "c.tgz" => vec![format!("{name}/a.jpg")],
        _ => vec![format!("{name}/a.jpg"), format!("{name}/b.png")],
    });
    assert_eq!(names, expected.concat());
    let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
    let codes: Vec<_> = rejects.iter().map(|reject| reject.code).collect();
    assert_eq!(codes, [RejectCode::Truncated, RejectCode::Malformed]);
    assert!(
        rejects[0]
            .reason
            .starts_with("c.tgz: broken after 1 image; ")
    );
}

#[test]
fn single_compressed_shard_is_an_error_with_unpack_command() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.tar"), b"\x1f\x8b\x08\0\0\0").unwrap();
    let error = plan_shards(folder.path(), 2)
        .open(&ResumeState::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("s.tar: is compressed, but only plain tar files and those whose names end"),
        "{error}"
    );
}

#[test]
fn key_ends_at_first_dot_of_file_name() {
    assert_eq!(
        ["a.b/c.seg.png", "x.jpg", "a/.jpg", "none"].map(key),
        ["a.b/c", "x", "a/.jpg", "none"]
    );
}
