//! Tests of IDX and NumPy files that declare more than they contain, decompress to far more than
//! their size, or are not arrays.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::run::{RunResult, run};

fn read(folder: &Path, kind: &str, path: &str, options: &str) -> RunResult {
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

fn codes(result: &RunResult) -> Vec<(u64, &str)> {
    result
        .rejects
        .iter()
        .map(|reject| (reject.row, reject.code.as_str()))
        .collect()
}

fn idx(sides: &[u32]) -> Vec<u8> {
    let sides: Vec<u8> = sides.iter().flat_map(|side| side.to_be_bytes()).collect();
    [&[0, 0, 8, (sides.len() / 4) as u8][..], &sides].concat()
}

/// Writes `head` and `zeros` zero bytes, compressed.
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

/// Writes an archive of one array: its header `head` and `zeros` zero bytes.
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
fn idx_file_with_excessive_count_gives_its_records() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("a.idx"),
        [idx(&[u32::MAX, 2, 2]), vec![7; 42]].concat(),
    )
    .unwrap();
    let result = read(folder.path(), "idx", "a.idx", "");
    result.assert_complete();
    assert_eq!(
        (result.written, codes(&result)),
        (10, vec![(10, "truncated")])
    );
    result.assert_memory_within(128);
}

#[test]
fn decompression_bomb_is_read_up_to_its_declared_size() {
    let folder = tempfile::tempdir().unwrap();
    gzip_bomb(&folder.path().join("a.gz"), &idx(&[2, 28, 28]), 1 << 30);
    let result = read(folder.path(), "idx", "a.gz", "");
    result.assert_complete();
    assert_eq!(
        (result.written, codes(&result)),
        (2, vec![(2, "malformed")])
    );
    result.assert_memory_within(128);
    npz(
        &folder.path().join("a.npz"),
        &npy(false, "(2, 28, 28)"),
        1 << 28,
    );
    let npz_result = read(folder.path(), "npz", "a.npz", "");
    npz_result.assert_complete();
    assert_eq!(
        (npz_result.written, codes(&npz_result)),
        (2, vec![(2, "malformed")])
    );
    npz_result.assert_memory_within(128);
}

#[test]
fn records_above_the_limit_are_refused_by_the_plan() {
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
        let result = read(folder.path(), kind, file, "");
        assert_eq!(result.code, Some(2));
        assert!(
            result
                .log
                .contains("increase limits.record_bytes to read it"),
            "{}",
            result.log
        );
        result.assert_memory_within(64);
    }
}

#[test]
fn fortran_arrays_fit_in_memory_or_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    npz(
        &folder.path().join("in/b.npz"),
        &npy(true, "(1000000000, 2)"),
        1 << 28,
    );
    let refused = read(folder.path(), "npz", "in", "");
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.log.contains("numpy.ascontiguousarray"),
        "{}",
        refused.log
    );
    npz(
        &folder.path().join("in/a.npz"),
        &npy(true, "(1000, 2)"),
        2000,
    );
    let result = read(folder.path(), "npz", "in", "");
    result.assert_complete();
    assert_eq!(
        (result.written, codes(&result)),
        (1000, vec![(0, "too_large")])
    );
    result.assert_memory_within(128);
    // The array fits in memory, but the file is truncated.
    npz(
        &folder.path().join("in/b.npz"),
        &npy(true, "(50000000, 2)"),
        1 << 20,
    );
    let truncated = read(folder.path(), "npz", "in", "");
    truncated.assert_complete();
    assert_eq!(
        (truncated.written, codes(&truncated)),
        (1000, vec![(0, "truncated")])
    );
    truncated.assert_memory_within(256);
}

#[test]
fn file_without_array_is_refused_by_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec();
    long.resize(1 << 20, b' ');
    // The end record of a central directory of 65,535 members and 4 GiB, without the directory.
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
            let result = read(folder.path(), kind, "x", "");
            assert_eq!(result.code, Some(2), "{kind}: {}", result.log);
            assert!(
                result.log.contains("stages.in.path") && result.log.len() < 1000,
                "{}",
                result.log
            );
            result.assert_memory_within(64);
        }
    }
}

#[test]
fn archive_of_100000_members_is_refused_in_bounded_memory() {
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
    let result = read(folder.path(), "npz", "x.npz", "");
    assert_eq!(result.code, Some(2));
    assert!(
        result.log.contains("more than 10000 members"),
        "{}",
        result.log
    );
    result.assert_memory_within(64);
}
