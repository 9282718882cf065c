//! Tar shards with members that nest, lie about their size, or point elsewhere.

use std::fs;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::run::{Ran, run};

const PIXEL: &[u8] = b"P6 1 1 255\nrgb";

fn read(folder: &Path) -> Ran {
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

/// A header block whose name is taken as it is, and its content.
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
fn names_that_lead_elsewhere_are_only_names_and_shards_in_shards_are_no_images() {
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
    let ran = read(folder.path());
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (4, 3), "{:?}", ran.rejects);
    assert_eq!(ran.codes()["a.tar/inner.jpg"], "unsupported");
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["bad", "in", "out", "p.toml", "stderr", "stdout"],
        "nothing was unpacked"
    );
}

#[test]
fn broken_shards_give_what_comes_before_and_one_reject_each() {
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
    let ran = read(folder.path());
    ran.adds_up();
    assert!(ran.kept >= 6, "{}: {:?}", ran.kept, ran.rejects);
    let codes = ran.codes();
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
    ran.took_at_most(128);
}
