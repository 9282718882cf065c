//! Resources of the machine that the process may use: cores, memory and disk space, within the
//! limits of its container.

use std::path::{Path, PathBuf};

/// Number of cores that the process may use, by CPU affinity and the quota of its container.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes of memory that the process may use: the smallest of the limits of its control groups
/// and the memory of the machine.
pub(crate) fn memory_limit() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_memory(&text));
    // Without /proc, the size of the memory is not known; 4 GiB is a small machine.
    let machine = machine.unwrap_or(4 << 30);
    cgroup_memory_limit().map_or(machine, |limit| limit.min(machine))
}

/// Bytes of memory that the control groups of the process (its container) allow: the smallest of
/// their limits; `None` if there is no limit.
pub(crate) fn cgroup_memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limits(&groups, Path::new("/sys/fs/cgroup"))
        .into_iter()
        .min()
        .filter(|&limit| limit < UNLIMITED)
}

/// Limits above this value mean that there is no limit (version 1 of control groups).
const UNLIMITED: u64 = 1 << 60;

/// Out-of-memory kills that the kernel has counted since the boot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OomKills {
    /// The identifier of the boot.
    pub boot: String,
    /// Processes that were killed for lack of memory, in any control group of the machine.
    pub kills: u64,
}

/// The out-of-memory kills; `None` if the kernel does not report them.
pub(crate) fn oom_kills() -> Option<OomKills> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()?
        .trim()
        .to_owned();
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    let kills = counters
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()?;
    Some(OomKills { boot, kills })
}

/// Maximum number of files and connections that the process may have open; `None` if it is
/// unlimited or unknown.
pub(crate) fn open_file_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Runs `work`, compiled for the widest SIMD registers of this processor. Results do not depend on
/// the register width.
#[inline(always)]
pub(crate) fn simd_dispatch<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Runs a kernel that is written for SIMD registers of any width, for the widest of this processor.
#[cfg(feature = "train")]
pub(crate) fn simd_kernel<K: pulp::WithSimd>(kernel: K) -> K::Output {
    pulp::Arch::new().dispatch(kernel)
}

/// Makes glibc keep memory that batches free for later batches. By default, it returns free memory
/// at the end of a heap to the system as soon as that exceeds about twice the size of a batch, and
/// requests it again page by page. Settings of the user in the environment are kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no safe interface")]
pub fn tune_allocator() {
    const TRIM: (&str, i32) = ("MALLOC_TRIM_THRESHOLD_", 32 << 20);
    const MAP: (&str, i32) = ("MALLOC_MMAP_THRESHOLD_", 16 << 20);
    if [TRIM.0, MAP.0, "GLIBC_TUNABLES"]
        .iter()
        .all(|name| std::env::var_os(name).is_none())
    {
        // SAFETY: `mallopt` receives two integers, which it stores.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM.1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAP.1);
        }
    }
}

/// Does nothing for other C libraries.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn tune_allocator() {}

/// Space on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    /// Space that is available to a user other than root.
    pub free: u64,
    /// Total space.
    pub size: u64,
}

/// The space on the file system that holds a folder; `None` if the system does not report it.
pub(crate) fn disk_space(folder: &Path) -> Option<DiskSpace> {
    #[cfg(unix)]
    {
        let stats = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stats.f_frsize);
        Some(DiskSpace {
            free: bytes(stats.f_bavail),
            size: bytes(stats.f_blocks),
        })
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// The limits of the process's control group and of its ancestors. `groups` has the format of
/// `/proc/self/cgroup`; the groups are mounted at `root`.
fn cgroup_limits(groups: &str, root: &Path) -> Vec<u64> {
    let root = root.display();
    let paths =
        groups
            .lines()
            .filter_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
                [_, "", path] => Some((PathBuf::from(format!("{root}{path}")), "memory.max")),
                [_, controllers, path] if controllers.split(',').any(|name| name == "memory") => {
                    Some((
                        PathBuf::from(format!("{root}/memory{path}")),
                        "memory.limit_in_bytes",
                    ))
                }
                _ => None,
            });
    paths
        .flat_map(|(path, file)| limits_upwards(&path, file))
        .collect()
}

fn limits_upwards(path: &Path, file: &str) -> Vec<u64> {
    let limit = |folder: &Path| {
        std::fs::read_to_string(folder.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    path.ancestors().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn limits(groups: &str, files: &[(&str, &str)]) -> Vec<u64> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        cgroup_limits(groups, root.path())
    }

    #[test]
    fn limits_of_both_versions_and_of_ancestors_are_found() {
        let nested = [
            ("a/b/memory.max", "max\n"),
            ("a/memory.max", "1000\n"),
            ("memory.max", "3000\n"),
        ];
        assert_eq!(limits("0::/a/b\n", &nested), [1000, 3000]);
        let first = [
            ("memory/a/memory.limit_in_bytes", "2000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ];
        assert_eq!(
            limits("4:cpu,memory:/a\n1:cpu:/b\n0::/\n", &first),
            [2000, 9_223_372_036_854_771_712]
        );
    }

    #[test]
    fn group_of_a_host_path_is_found_at_the_container_root() {
        // The path is that of the host, of which the container mounts only its own part.
        let inside = [("memory/memory.limit_in_bytes", "4000")];
        assert_eq!(limits("4:memory:/docker/0123\n", &inside), [4000]);
    }
}
