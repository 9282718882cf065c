//! The folder of real data that some tests read.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file or folder, `part`, of the folder that `LATENTFLOW_TEST_DATA` names. Without this
/// variable, the function prints a line and returns `None`, and the test is to return.
///
/// # Panics
///
/// The named folder lacks the part, or `LATENTFLOW_REQUIRE_TEST_DATA` is set and no folder is
/// named.
pub fn test_data(part: &str) -> Option<PathBuf> {
    let Some(folder) = env::var_os("LATENTFLOW_TEST_DATA") else {
        assert!(
            env::var_os("LATENTFLOW_REQUIRE_TEST_DATA").is_none(),
            "LATENTFLOW_REQUIRE_TEST_DATA is set without LATENTFLOW_TEST_DATA, which names the \
             folder of test data"
        );
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // The test harness does not show what a passed test prints by `eprintln!`.
        let _ = writeln!(
            io::stderr(),
            "skipped: {test} reads real data (set LATENTFLOW_TEST_DATA)"
        );
        return None;
    };
    let path = Path::new(&folder).join(part);
    assert!(
        path.exists(),
        "no test data at {}; LATENTFLOW_TEST_DATA names their folder",
        path.display()
    );
    Some(path)
}
