//! Tests of tar shards with nested archives, wrong sizes of members, or names outside the folder.

use std::fs;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::run::{RunResult, run};

const PIXEL: &[u8] = b"P6 1 1 255\nrgb";

fn read(folder: &Path) -> RunResult {
    let pipeline = "[stages.shards]\nkind = \"tar\"\npath = \"in\"\n\
        [stages.pixels]\nkind = \"pixels\"\ninputs = [\"shards\"]\nsize = [8, 8]\n\
        [stages.out]\nkind = \"parquet\"\ninputs = [\"pixels\"]\npath = \"out\"\n\
        [rejects]\npath = \"bad\"\n";
    run(folder, pipeline, &[])
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

/// A header block with the unchanged name, followed by the padded content.
fn raw(name: &str, kind: EntryType, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, size);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes().as_slice(), content, &padding].concat()
}

fn shard(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    raw(name, EntryType::Regular, content.len() as u64, content)
}

#[test]
fn names_outside_the_folder_and_nested_shards_are_harmless() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let inner = shard(&[member("x.jpg", PIXEL)]);
    let members = [
        member("/etc/absolute.ppm", PIXEL),
        member("../../above.ppm", PIXEL),
        member("inner.tar", &inner),
        member("inner.jpg", &inner),
        member("..ppm", PIXEL),
        raw("device.ppm", EntryType::Char, 0, b""),
        raw("pipe.ppm", EntryType::Fifo, 0, b""),
        raw("folder.ppm", EntryType::Directory, 0, b""),
    ];
    fs::write(folder.path().join("in/a.tar"), shard(&members)).unwrap();
    let result = read(folder.path());
    result.assert_complete();
    assert_eq!(
        (result.records, result.written),
        (4, 3),
        "{:?}",
        result.rejects
    );
    assert_eq!(result.codes()["a.tar/inner.jpg"], "unsupported");
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["bad", "in", "out", "p.toml", "stderr", "stdout"],
        "the run must not extract files"
    );
}

#[test]
fn broken_shards_give_earlier_members_and_one_reject_each() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let good = || member("a.ppm", PIXEL);
    let mut bad_sum = member("b.ppm", PIXEL);
    bad_sum[3] ^= 1;
    let mut negative = member("c.ppm", PIXEL);
    negative[124..136].copy_from_slice(&[0xff; 12]);
    let mut sparse = header(EntryType::GNUSparse, 512);
    sparse.as_gnu_mut().unwrap().realsize = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
    sparse.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"holes.ppm");
    sparse.set_cksum();
    let sparse = [sparse.as_bytes().as_slice(), &[1; 512]].concat();
    // 8 EiB less one byte, in the binary form of sizes.
    let huge = raw("huge.ppm", EntryType::Regular, (1 << 63) - 1, PIXEL);
    let shards = [
        ("checksum.tar", shard(&[good(), bad_sum, good()])),
        ("huge.tar", shard(&[good(), huge, good()])),
        ("sparse.tar", shard(&[good(), sparse, good()])),
        ("negative.tar", shard(&[good(), negative, good()])),
        ("cut.tar", shard(&[good(), good()])[..1500].to_vec()),
        ("nonsense.tar", vec![b'x'; 5000]),
        ("names.tar", {
            let mut builder = Builder::new(good());
            let long = vec![b'n'; 8 << 20];
            let mut name = header(EntryType::GNULongName, long.len() as u64);
            name.set_cksum();
            builder.append(&name, long.as_slice()).unwrap();
            builder.into_inner().unwrap()
        }),
    ];
    for (name, bytes) in &shards {
        fs::write(folder.path().join("in").join(name), bytes).unwrap();
    }
    fs::write(folder.path().join("in/empty.tar"), b"").unwrap();
    let result = read(folder.path());
    result.assert_complete();
    assert!(
        result.written >= 6,
        "{}: {:?}",
        result.written,
        result.rejects
    );
    let codes = result.codes();
    for name in [
        "checksum.tar",
        "huge.tar",
        "negative.tar",
        "nonsense.tar",
        "names.tar",
    ] {
        let of_shard =
            |(source, _): &(&&str, &&str)| source.starts_with(name) || source.contains(name);
        assert_eq!(
            codes.iter().filter(of_shard).count(),
            1,
            "{name}: {codes:?}"
        );
    }
    result.assert_memory_within(128);
}
