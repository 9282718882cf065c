//! A randomized test of a watched folder against a plain model of it.
//!
//! Each version of a file must become one record although folders are unmounted and moved, files
//! are renamed, touched, copied and made unreadable, and the daemon is killed.
//! `LATENTFLOW_WATCH_STEPS` sets the number of steps, `LATENTFLOW_WATCH_SEED` the seed that selects
//! them.

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

use super::daemon_process::Daemon;
use super::watch::PIPELINE;
use crate::common::outputs::data_files;

/// Default number of steps, which take about 20 seconds.
const STEPS: usize = 400;
/// Maximum number of files without a record before the test waits for their records.
const UNCONFIRMED: usize = 24;
/// Command that starts the daemon as an ordinary user if the test runs as root, since root ignores
/// permissions.
const USER: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// An operation on a folder that makes its files unavailable for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    Moved,
    Unmounted,
    Locked,
}

/// The expected state: the files and the number of records of each name.
struct Model {
    site: PathBuf,
    random: ChaCha8Rng,
    /// Whether the test can mount file systems and change users.
    is_root: bool,
    /// The expected number of records of each name.
    expected: BTreeMap<String, usize>,
    /// The contents of the existing files, those in absent folders included.
    files: BTreeMap<String, Vec<u8>>,
    /// The names and contents of removed files.
    removed: BTreeMap<String, Vec<u8>>,
    /// Folders whose files are unavailable.
    absent: BTreeMap<String, Absence>,
    /// Files without read permission.
    unreadable: BTreeSet<String>,
    /// The last number given to a content or a name.
    next: u32,
    /// The number of records found of each name.
    found: BTreeMap<String, usize>,
    /// The output files that were read.
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
            eprintln!("file systems cannot be mounted here: folders are only moved");
            model.is_root = false;
        }
        if model.is_root {
            // A bind mount has the device number of its folder. With a file system of its own, the
            // missing mount is recognized by the device number.
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
            assert!(
                mounted,
                "cannot mount tmpfs although a bind mount succeeded"
            );
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

    /// An image unlike those of all other files; all have the same size.
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

    fn is_absent(&self, name: &str) -> bool {
        self.absent
            .keys()
            .any(|folder| name == folder || name.starts_with(&format!("{folder}/")))
    }

    fn available_folder(&mut self) -> &'static str {
        let available: Vec<&str> = FOLDERS
            .into_iter()
            .filter(|folder| !self.is_absent(folder))
            .collect();
        available.choose(&mut self.random).unwrap()
    }

    /// Adds a new version of a file.
    fn add_version(&mut self, name: String, content: Vec<u8>) {
        *self.expected.entry(name.clone()).or_default() += 1;
        self.removed.remove(&name);
        self.files.insert(name, content);
    }

    /// Reads the records committed since the last call; panics on an unexpected record.
    fn read_outputs(&mut self) {
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
                "{name}: {count} records of {expected} versions"
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

    /// Waits until every readable file has its record.
    fn confirm(&mut self, daemon: &Daemon) {
        daemon.wait("every record", || {
            self.read_outputs();
            let waiting = self.unconfirmed();
            waiting
                .iter()
                .all(|name| self.unreadable.contains(*name) || self.is_absent(name))
                .then_some(())
        });
    }

    /// An available file that has its record.
    fn settled(&mut self, daemon: &Daemon) -> Option<String> {
        self.read_outputs();
        let pick = |model: &mut Self| {
            let waiting: BTreeSet<String> = model.unconfirmed().into_iter().cloned().collect();
            let names = model
                .files
                .keys()
                .filter(|name| !waiting.contains(*name) && !model.is_absent(name));
            let names: Vec<String> = names.cloned().collect();
            names.choose(&mut model.random).cloned()
        };
        pick(self).or_else(|| {
            self.confirm(daemon);
            pick(self)
        })
    }

    fn write(&mut self) {
        let (folder, content) = (self.available_folder(), self.content());
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
                // The time is set after the file has been closed, as upload clients do.
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
        self.add_version(name, content);
    }

    /// Creates a tree folder by folder and file by file, without a pause.
    fn copy_tree(&mut self) {
        let parent = self.available_folder();
        let tree = self.name(parent).replace(".pgm", "");
        for below in ["", "/x", "/x/y", "/z"] {
            let folder = format!("{tree}{below}");
            fs::create_dir(self.path(&folder)).unwrap();
            for _ in 0..self.random.random_range(1..4) {
                let (name, content) = (self.name(&folder), self.content());
                fs::write(self.path(&name), &content).unwrap();
                self.add_version(name, content);
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
                self.add_version(name, content);
            }
            // A file with the same content is the same version.
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
                self.add_version(new, content);
            }
        }
    }

    fn restore(&mut self) {
        let names: Vec<String> = self
            .removed
            .keys()
            .filter(|name| !self.is_absent(name))
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

    /// Makes a folder unavailable, or restores one.
    fn toggle_absence(&mut self, daemon: &Daemon) {
        if let Some((folder, how)) = self.absent.pop_first() {
            return self.restore_folder(&folder, how);
        }
        // A file that is removed before it is read has no record.
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

    fn restore_folder(&mut self, folder: &str, how: Absence) {
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

    /// Creates a file without read permission, or makes one readable again.
    fn toggle_unreadable(&mut self) {
        if let Some(name) = self.unreadable.pop_first() {
            if self.is_absent(&name) {
                self.unreadable.insert(name);
            } else {
                fs::set_permissions(self.path(&name), Permissions::from_mode(0o644)).unwrap();
            }
            return;
        }
        let (folder, content) = (self.available_folder(), self.content());
        let name = self.name(folder);
        let hidden = self.path(folder).join(".secret");
        fs::write(&hidden, &content).unwrap();
        fs::set_permissions(&hidden, Permissions::from_mode(0o000)).unwrap();
        fs::rename(hidden, self.path(&name)).unwrap();
        self.add_version(name.clone(), content);
        self.unreadable.insert(name);
    }

    /// Moves the watched folder away and back.
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
            self.restore_folder(&folder, how);
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
fn random_steps_leave_one_record_of_each_version() {
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
            76..86 => model.toggle_absence(&daemon),
            86..92 if model.is_root => model.toggle_unreadable(),
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
        model.read_outputs();
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
    // Another start reads no file again.
    daemon = model.start();
    model.write();
    model.confirm(&daemon);
    daemon.stop();
    model.read_outputs();
    assert_eq!(model.found, model.expected);
    let rejects = data_files(&site.path().join("out/_latentflow/rejects"));
    assert!(rejects.is_empty(), "expected no rejects: {rejects:?}");
    eprintln!(
        "{steps} steps, {starts} starts, root: {}: 0 lost, 0 duplicated",
        model.is_root
    );
}
