//! What the process may use of the machine: cores and memory, container limits honoured.

use std::path::{Path, PathBuf};

/// Cores that the process may use, by affinity and by its container's quota.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes of memory that the process may use: the smallest limit of its control groups, or the machine's memory.
pub fn memory() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
    // Without /proc there is no cheap way to ask; 4 GiB is a modest machine.
    let machine = machine.unwrap_or(4 << 30);
    group_limits().into_iter().fold(machine, u64::min)
}

/// Files and connections that the process may have open at the same time; `None` where that is not bounded, or not known.
pub fn descriptors() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Runs `work`, compiled for the widest registers that this processor has. Results do not depend on it.
#[inline(always)]
pub fn wide<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Has glibc keep what batches free for the batches to come: by default it hands back what is free at the end of a thread's
/// memory as soon as that is twice a batch or so, and fetches it again, page by page. Who has set how it is to be, has decided.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no other way to tell the C library")]
pub fn keep_memory() {
    const TRIM: (&str, i32) = ("MALLOC_TRIM_THRESHOLD_", 32 << 20);
    const MAP: (&str, i32) = ("MALLOC_MMAP_THRESHOLD_", 16 << 20);
    if [TRIM.0, MAP.0, "GLIBC_TUNABLES"].iter().all(|name| std::env::var_os(name).is_none()) {
        // SAFETY: it takes two numbers, and keeps them.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM.1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAP.1);
        }
    }
}

/// Other C libraries are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_memory() {}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What a user that is not root may still write.
    pub free: u64,
    /// All that there is.
    pub size: u64,
}

/// The room on the file system that holds a folder; `None` where that cannot be told.
pub fn room(folder: &Path) -> Option<Room> {
    #[cfg(unix)]
    {
        let said = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(said.f_frsize);
        Some(Room { free: bytes(said.f_bavail), size: bytes(said.f_blocks) })
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The limits of the process's control group and of those above it.
fn group_limits() -> Vec<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let paths = groups.lines().filter_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "", path] => Some((PathBuf::from(format!("/sys/fs/cgroup{path}")), "memory.max")),
        [_, controllers, path] if controllers.split(',').any(|name| name == "memory") => {
            Some((PathBuf::from(format!("/sys/fs/cgroup/memory{path}")), "memory.limit_in_bytes"))
        }
        _ => None,
    });
    paths.flat_map(|(path, file)| limits_upwards(&path, file)).collect()
}

fn limits_upwards(path: &Path, file: &str) -> Vec<u64> {
    let limit = |folder: &Path| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok();
    path.ancestors().filter_map(limit).collect()
}
