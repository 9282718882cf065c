//! IDX and NumPy files that claim more than they hold, expand without end, or are no arrays at all.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::run::{Ran, run};

fn read(folder: &Path, kind: &str, path: &str, options: &str) -> Ran {
    let _ = fs::remove_dir_all(folder.join("out"));
    let _ = fs::remove_dir_all(folder.join("bad"));
    let pipeline = format!(
        "[limits]\nrecord_bytes = \"1MiB\"\nmemory = \"256MiB\"\n\
         [stages.in]\nkind = \"{kind}\"\npath = \"{path}\"\n{options}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
         [rejects]\npath = \"bad\"\n"
    );
    run(folder, &pipeline, &[])
}

fn codes(ran: &Ran) -> Vec<(u64, &str)> {
    ran.rejects
        .iter()
        .map(|reject| (reject.row, reject.code.as_str()))
        .collect()
}

fn idx(sides: &[u32]) -> Vec<u8> {
    let sides: Vec<u8> = sides.iter().flat_map(|side| side.to_be_bytes()).collect();
    [&[0, 0, 8, (sides.len() / 4) as u8][..], &sides].concat()
}

/// Zeros behind `head`, compressed.
fn gzip_bomb(path: &Path, head: &[u8], zeros: u64) {
    let mut gzip = GzEncoder::new(File::create(path).unwrap(), Compression::best());
    gzip.write_all(head).unwrap();
    io::copy(&mut io::repeat(0).take(zeros), &mut gzip).unwrap();
    gzip.finish().unwrap();
}

fn npy(fortran: bool, shape: &str) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '|u1', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [
        &b"\x93NUMPY\x01\x00"[..],
        &(text.len() as u16).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

/// An archive of one array: its header and zeros behind it.
fn npz(path: &Path, head: &[u8], zeros: u64) {
    let mut archive = ZipArchiveWriter::new(File::create(path).unwrap());
    let method = CompressionMethod::DEFLATE;
    let (mut entry, config) = archive
        .new_file("x.npy")
        .compression_method(method)
        .start()
        .unwrap();
    let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::best()));
    writer.write_all(head).unwrap();
    io::copy(&mut io::repeat(0).take(zeros), &mut writer).unwrap();
    let (encoder, descriptor) = writer.finish().unwrap();
    encoder.finish().unwrap();
    entry.finish(descriptor).unwrap();
    archive.finish().unwrap();
}

#[test]
fn an_idx_file_that_claims_billions_of_records_gives_those_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("a.idx"),
        [idx(&[u32::MAX, 2, 2]), vec![7; 42]].concat(),
    )
    .unwrap();
    let ran = read(folder.path(), "idx", "a.idx", "");
    ran.adds_up();
    assert_eq!((ran.kept, codes(&ran)), (10, vec![(10, "truncated")]));
    ran.took_at_most(128);
}

#[test]
fn what_expands_without_end_is_read_as_far_as_its_header_goes() {
    let folder = tempfile::tempdir().unwrap();
    gzip_bomb(&folder.path().join("a.gz"), &idx(&[2, 28, 28]), 1 << 30);
    let ran = read(folder.path(), "idx", "a.gz", "");
    ran.adds_up();
    assert_eq!((ran.kept, codes(&ran)), (2, vec![(2, "malformed")]));
    ran.took_at_most(128);
    npz(
        &folder.path().join("a.npz"),
        &npy(false, "(2, 28, 28)"),
        1 << 28,
    );
    let ran = read(folder.path(), "npz", "a.npz", "");
    ran.adds_up();
    assert_eq!((ran.kept, codes(&ran)), (2, vec![(2, "malformed")]));
    ran.took_at_most(128);
}

#[test]
fn records_beyond_the_limit_are_a_fault_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    gzip_bomb(
        &folder.path().join("a.gz"),
        &idx(&[1, 30_000, 30_000]),
        1 << 20,
    );
    npz(
        &folder.path().join("a.npz"),
        &npy(false, "(1, 30000, 30000)"),
        1 << 20,
    );
    for (kind, file) in [("idx", "a.gz"), ("npz", "a.npz")] {
        let ran = read(folder.path(), kind, file, "");
        assert_eq!(ran.code, Some(2));
        assert!(
            ran.log.contains("limits.record_bytes may raise that"),
            "{}",
            ran.log
        );
        ran.took_at_most(64);
    }
}

#[test]
fn columns_that_must_be_held_are_held_within_the_memory_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    npz(
        &folder.path().join("in/b.npz"),
        &npy(true, "(1000000000, 2)"),
        1 << 28,
    );
    let ran = read(folder.path(), "npz", "in", "");
    assert_eq!(ran.code, Some(2));
    assert!(ran.log.contains("numpy.ascontiguousarray"), "{}", ran.log);
    npz(
        &folder.path().join("in/a.npz"),
        &npy(true, "(1000, 2)"),
        2000,
    );
    let ran = read(folder.path(), "npz", "in", "");
    ran.adds_up();
    assert_eq!((ran.kept, codes(&ran)), (1000, vec![(0, "too_large")]));
    ran.took_at_most(128);
    // It fits, but is not there.
    npz(
        &folder.path().join("in/b.npz"),
        &npy(true, "(50000000, 2)"),
        1 << 20,
    );
    let ran = read(folder.path(), "npz", "in", "");
    ran.adds_up();
    assert_eq!((ran.kept, codes(&ran)), (1000, vec![(0, "truncated")]));
    ran.took_at_most(256);
}

#[test]
fn what_is_no_array_at_all_is_a_fault_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec();
    long.resize(1 << 20, b' ');
    // The end of a central directory of 65,535 members and 4 GiB, and nothing before it.
    let end = b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0".to_vec();
    let noise: Vec<u8> = (0_u32..1 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    for bytes in [
        vec![],
        vec![0],
        vec![0; 1 << 20],
        long,
        end,
        noise,
        b"\x1f\x8b\x08\0".to_vec(),
        idx(&[0; 200]),
    ] {
        fs::write(folder.path().join("x"), &bytes).unwrap();
        for kind in ["idx", "npz"] {
            let ran = read(folder.path(), kind, "x", "");
            assert_eq!(ran.code, Some(2), "{kind}: {}", ran.log);
            assert!(
                ran.log.contains("stages.in.path") && ran.log.len() < 1000,
                "{}",
                ran.log
            );
            ran.took_at_most(64);
        }
    }
}

#[test]
fn an_archive_of_very_many_members_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = ZipArchiveWriter::new(io::BufWriter::new(
        File::create(folder.path().join("x.npz")).unwrap(),
    ));
    for number in 0..100_000 {
        let name = format!("{number}{}.npy", "n".repeat(200));
        let (mut entry, config) = archive.new_file(&name).start().unwrap();
        let (_, descriptor) = config.wrap(&mut entry).finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    let ran = read(folder.path(), "npz", "x.npz", "");
    assert_eq!(ran.code, Some(2));
    assert!(ran.log.contains("more than 10000 members"), "{}", ran.log);
    ran.took_at_most(64);
}
