//! A watched folder to which anything happens at random, against a plain model: each version of a
//! file is one record, whatever is unmounted, moved, renamed, touched, copied, made unreadable, or
//! killed meanwhile.
//!
//! `LATENTFLOW_WATCH_STEPS` sets the number of steps, `LATENTFLOW_WATCH_SEED` which ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use arrow::array::AsArray as _;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::process::Daemon;
use super::watch::PIPELINE;
use crate::common::outputs::data_files;

/// Steps where none are asked for: about 20 seconds.
const STEPS: usize = 400;
/// Files that may wait for their record before the model waits for them.
const UNCONFIRMED: usize = 24;
/// The daemon runs as this user where the test runs as root, so that permissions count.
const USER: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// What is done to a folder that makes its files disappear for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    Moved,
    Unmounted,
    Locked,
}

/// What must come of what was done.
struct Model {
    site: PathBuf,
    random: ChaCha8Rng,
    /// Whether file systems can be mounted, and users changed.
    is_root: bool,
    /// Records that each name must have.
    expected: BTreeMap<String, usize>,
    /// The content of the files that are there, or lie in folders that are away.
    files: BTreeMap<String, Vec<u8>>,
    /// Files that were removed, and what they held.
    removed: BTreeMap<String, Vec<u8>>,
    /// Folders whose files are away.
    absent: BTreeMap<String, Absence>,
    /// Files that nobody may read.
    unreadable: BTreeSet<String>,
    /// Numbers of contents and names that were given out.
    next: u32,
    /// The records that were found, by name, and the files that were read for them.
    found: BTreeMap<String, usize>,
    read: BTreeSet<PathBuf>,
}

const FOLDERS: [&str; 6] = ["", "a", "b", "b/deep", "mount", "mount/deep"];

impl Model {
    fn new(site: &Path, seed: u64) -> Self {
        let can = |program: &str, arguments: &[&str]| {
            Command::new(program)
                .args(arguments)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        let mut model = Self {
            site: site.to_path_buf(),
            random: ChaCha8Rng::seed_from_u64(seed),
            is_root: can(USER[0], &[&USER[1..], &["true"]].concat()),
            expected: BTreeMap::new(),
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            absent: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            next: 0,
            found: BTreeMap::new(),
            read: BTreeSet::new(),
        };
        fs::create_dir_all(site.join("disk/deep")).unwrap();
        FOLDERS
            .iter()
            .for_each(|folder| fs::create_dir_all(model.path(folder)).unwrap());
        if model.is_root
            && !can(
                "mount",
                &[
                    "--bind",
                    path(&site.join("disk")),
                    path(&model.path("mount")),
                ],
            )
        {
            eprintln!("nothing can be mounted here: folders are moved only");
            model.is_root = false;
        }
        if model.is_root {
            // The device of a bind mount is that of the folder; one of its own shows that it is
            // missing.
            can("umount", &[path(&model.path("mount"))]);
            let mounted = can(
                "mount",
                &[
                    "-t",
                    "tmpfs",
                    "-o",
                    "size=8m",
                    "tmpfs",
                    path(&site.join("disk")),
                ],
            );
            assert!(mounted, "a file system can be mounted once a folder can");
            fs::create_dir_all(site.join("disk/deep")).unwrap();
            assert!(can(
                "mount",
                &[
                    "--bind",
                    path(&site.join("disk")),
                    path(&model.path("mount"))
                ]
            ));
        }
        for folder in [".", "in", "in/b", "in/b/deep", "in/a"] {
            fs::set_permissions(site.join(folder), Permissions::from_mode(0o777)).unwrap();
        }
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.join("in").join(name)
    }

    fn start(&self) -> Daemon {
        let wrapper: &[&str] = if self.is_root { &USER } else { &[] };
        Daemon::start_by(wrapper, &self.site, &[("LATENTFLOW_WATCH_SPEED", "20")])
    }

    /// An image that no other file holds; all have one size.
    fn content(&mut self) -> Vec<u8> {
        self.next += 1;
        [
            b"P5 4 4 255\n".as_slice(),
            &self.next.to_be_bytes(),
            &[7; 12],
        ]
        .concat()
    }

    fn name(&mut self, folder: &str) -> String {
        self.next += 1;
        format!(
            "{folder}{}{}.pgm",
            if folder.is_empty() { "" } else { "/" },
            self.next
        )
    }

    fn is_away(&self, name: &str) -> bool {
        self.absent
            .keys()
            .any(|folder| name == folder || name.starts_with(&format!("{folder}/")))
    }

    fn folder(&mut self) -> &'static str {
        let there: Vec<&str> = FOLDERS
            .into_iter()
            .filter(|folder| !self.is_away(folder))
            .collect();
        there.choose(&mut self.random).unwrap()
    }

    /// A new version of a file.
    fn came(&mut self, name: String, content: Vec<u8>) {
        *self.expected.entry(name.clone()).or_default() += 1;
        self.removed.remove(&name);
        self.files.insert(name, content);
    }

    /// Reads what was committed since the last time; nothing may be there that is not expected.
    fn look(&mut self) {
        for path in data_files(&self.site.join("out")) {
            if !self.read.insert(path.clone()) {
                continue;
            }
            let file = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap())
                .unwrap()
                .build()
                .unwrap();
            for batch in file.map(Result::unwrap) {
                for name in batch["source"].as_string::<i32>().iter().flatten() {
                    *self.found.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
        for (name, count) in &self.found {
            let expected = self.expected.get(name).copied().unwrap_or(0);
            assert!(
                *count <= expected,
                "{name}: {count} records, and {expected} versions"
            );
        }
    }

    fn unconfirmed(&self) -> Vec<&String> {
        let waits = |(name, count): &(&String, &usize)| self.found.get(*name) != Some(*count);
        self.expected
            .iter()
            .filter(waits)
            .map(|(name, _)| name)
            .collect()
    }

    /// Waits until every file that can be read has its record.
    fn confirm(&mut self, daemon: &Daemon) {
        daemon.wait("every record", || {
            self.look();
            let waiting = self.unconfirmed();
            waiting
                .iter()
                .all(|name| self.unreadable.contains(*name) || self.is_away(name))
                .then_some(())
        });
    }

    /// A file that is there and has its record.
    fn settled(&mut self, daemon: &Daemon) -> Option<String> {
        self.look();
        let pick = |model: &mut Self| {
            let waiting: BTreeSet<String> = model.unconfirmed().into_iter().cloned().collect();
            let names = model
                .files
                .keys()
                .filter(|name| !waiting.contains(*name) && !model.is_away(name));
            let names: Vec<String> = names.cloned().collect();
            names.choose(&mut model.random).cloned()
        };
        pick(self).or_else(|| {
            self.confirm(daemon);
            pick(self)
        })
    }

    fn write(&mut self) {
        let (folder, content) = (self.folder(), self.content());
        let name = self.name(folder);
        let path = self.path(&name);
        match self.random.random_range(0..4) {
            0 => fs::write(&path, &content).unwrap(),
            1 => {
                let hidden = self.path(folder).join(".upload");
                fs::write(&hidden, &content).unwrap();
                fs::rename(hidden, &path).unwrap();
            }
            2 => {
                // The time is set after the file was closed, as upload clients do.
                fs::write(&path, &content).unwrap();
                touch(&path, &mut self.random);
            }
            _ => {
                let outside = self.path(folder).join(".original");
                fs::write(&outside, &content).unwrap();
                touch(&outside, &mut self.random);
                fs::hard_link(&outside, &path).unwrap();
                fs::remove_file(outside).unwrap();
            }
        }
        self.came(name, content);
    }

    /// A tree that comes folder by folder and file by file, as quickly as may be.
    fn copy_tree(&mut self) {
        let parent = self.folder();
        let tree = self.name(parent).replace(".pgm", "");
        for below in ["", "/x", "/x/y", "/z"] {
            let folder = format!("{tree}{below}");
            fs::create_dir(self.path(&folder)).unwrap();
            for _ in 0..self.random.random_range(1..4) {
                let (name, content) = (self.name(&folder), self.content());
                fs::write(self.path(&name), &content).unwrap();
                self.came(name, content);
            }
        }
    }

    fn change(&mut self, daemon: &Daemon) {
        let Some(name) = self.settled(daemon) else {
            return;
        };
        let path = self.path(&name);
        match self.random.random_range(0..6) {
            0 | 1 => {
                let content = self.content();
                fs::write(path, &content).unwrap();
                self.came(name, content);
            }
            // The same content is the same file.
            2 => fs::write(path, &self.files[&name]).unwrap(),
            3 => touch(&path, &mut self.random),
            4 => {
                fs::remove_file(path).unwrap();
                let content = self.files.remove(&name).unwrap();
                self.removed.insert(name, content);
            }
            _ => {
                let folder = name
                    .rsplit_once('/')
                    .map_or(String::new(), |(folder, _)| folder.to_owned());
                let new = self.name(&folder);
                fs::rename(path, self.path(&new)).unwrap();
                let content = self.files.remove(&name).unwrap();
                self.removed.insert(name, content.clone());
                self.came(new, content);
            }
        }
    }

    fn restore(&mut self) {
        let names: Vec<String> = self
            .removed
            .keys()
            .filter(|name| !self.is_away(name))
            .cloned()
            .collect();
        let Some(name) = names.choose(&mut self.random).cloned() else {
            return;
        };
        let folder = self.path(&name).parent().unwrap().to_path_buf();
        if folder.is_dir() {
            let content = self.removed.remove(&name).unwrap();
            fs::write(self.path(&name), &content).unwrap();
            self.files.insert(name, content);
        }
    }

    /// Takes a folder away, or brings one back.
    fn absence(&mut self, daemon: &Daemon) {
        if let Some((folder, how)) = self.absent.pop_first() {
            return self.bring_back(&folder, how);
        }
        // A file that is gone before it was read has no record.
        self.confirm(daemon);
        let (folder, how) = match self.random.random_range(0..3) {
            0 => ("b", Absence::Moved),
            1 if self.is_root => ("mount", Absence::Unmounted),
            _ => ("a", Absence::Locked),
        };
        let path = self.path(folder);
        match how {
            Absence::Moved => fs::rename(&path, self.site.join("away")).unwrap(),
            Absence::Unmounted => run("umount", &["-l", self::path(&path)]),
            Absence::Locked => fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap(),
        }
        self.absent.insert(folder.to_owned(), how);
    }

    fn bring_back(&mut self, folder: &str, how: Absence) {
        self.absent.remove(folder);
        let path = self.path(folder);
        match how {
            Absence::Moved => fs::rename(self.site.join("away"), path).unwrap(),
            Absence::Unmounted => run(
                "mount",
                &[
                    "--bind",
                    self::path(&self.site.join("disk")),
                    self::path(&path),
                ],
            ),
            Absence::Locked => fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap(),
        }
    }

    /// A file that cannot be read for a while.
    fn unreadable(&mut self) {
        if let Some(name) = self.unreadable.pop_first() {
            if self.is_away(&name) {
                self.unreadable.insert(name);
            } else {
                fs::set_permissions(self.path(&name), Permissions::from_mode(0o644)).unwrap();
            }
            return;
        }
        let (folder, content) = (self.folder(), self.content());
        let name = self.name(folder);
        let hidden = self.path(folder).join(".secret");
        fs::write(&hidden, &content).unwrap();
        fs::set_permissions(&hidden, Permissions::from_mode(0o000)).unwrap();
        fs::rename(hidden, self.path(&name)).unwrap();
        self.came(name.clone(), content);
        self.unreadable.insert(name);
    }

    /// The watched folder itself is moved away and comes back.
    fn replace_root(&mut self, daemon: &Daemon) {
        if !self.absent.is_empty() {
            return;
        }
        self.confirm(daemon);
        fs::rename(self.path(""), self.site.join("root")).unwrap();
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..200)));
        fs::rename(self.site.join("root"), self.path("")).unwrap();
    }

    fn end(&mut self) {
        while let Some((folder, how)) = self.absent.pop_first() {
            self.bring_back(&folder, how);
        }
        while let Some(name) = self.unreadable.pop_first() {
            fs::set_permissions(self.path(&name), Permissions::from_mode(0o644)).unwrap();
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if self.is_root {
            for mount in [self.path("mount"), self.site.join("disk")] {
                let _ = Command::new("umount").arg("-l").arg(mount).output();
            }
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

fn touch(path: &Path, random: &mut ChaCha8Rng) {
    let time = SystemTime::now() - Duration::from_millis(random.random_range(5_000..500_000_000));
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn each_version_is_one_record_whatever_happens() {
    let (steps, seed) = (
        variable("LATENTFLOW_WATCH_STEPS", STEPS),
        variable("LATENTFLOW_WATCH_SEED", 1),
    );
    let site = tempfile::tempdir().unwrap();
    fs::write(
        site.path().join("p.toml"),
        PIPELINE.replace("rescan = \"1s\"", "rescan = \"2s\""),
    )
    .unwrap();
    fs::create_dir(site.path().join("in")).unwrap();
    let mut model = Model::new(site.path(), seed as u64);
    let mut daemon = model.start();
    let mut starts = 1;
    for step in 0..steps {
        match model.random.random_range(0..100) {
            0..35 => model.write(),
            35..43 => model.copy_tree(),
            43..70 => model.change(&daemon),
            70..76 => model.restore(),
            76..86 => model.absence(&daemon),
            86..92 if model.is_root => model.unreadable(),
            86..94 => model.replace_root(&daemon),
            94..97 => {
                daemon.kill();
                daemon = model.start();
                starts += 1;
            }
            97..99 => {
                daemon.stop();
                daemon = model.start();
                starts += 1;
            }
            _ => model.confirm(&daemon),
        }
        model.look();
        if model.unconfirmed().len() > UNCONFIRMED {
            model.confirm(&daemon);
        }
        if step % 100 == 99 {
            eprintln!(
                "step {}: {} versions of {} files",
                step + 1,
                model.found.values().sum::<usize>(),
                model.found.len()
            );
        }
    }
    model.end();
    model.confirm(&daemon);
    daemon.stop();
    // Another start takes nothing again.
    daemon = model.start();
    model.write();
    model.confirm(&daemon);
    daemon.stop();
    model.look();
    assert_eq!(model.found, model.expected);
    let rejects = data_files(&site.path().join("out/_latentflow/rejects"));
    assert!(rejects.is_empty(), "nothing is rejected: {rejects:?}");
    eprintln!(
        "{steps} steps, {starts} starts, root: {}: 0 lost, 0 twice",
        model.is_root
    );
}
