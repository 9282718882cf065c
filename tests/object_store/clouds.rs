//! Tests of `gs://` and `az://` locations against a server that stands in for the stores.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};

use super::stand_in::{Cloud, SECRET, StandIn};
use super::{
    Store, assert_done, column, data_keys, latentflow, numbers, records, rows, run, start,
};
use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;

/// A pipeline of the CSV files below `in/` into Parquet files below `out/`.
fn tables(store: &StandIn) -> String {
    format!(
        "[stages.in]\nkind = \"csv\"\npath = \"{}\"\ntypes = {{ a = \"int\" }}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{}\"\n",
        store.url("in"),
        store.url("out")
    )
}

/// The values of the column `a` below `out/`, sorted.
fn values(store: &StandIn) -> Vec<i64> {
    let Some(records) = records(store, "out/") else {
        return Vec::new();
    };
    let mut values = column(&records, "a")
        .as_primitive::<Int64Type>()
        .values()
        .to_vec();
    values.sort_unstable();
    values
}

#[test]
fn objects_are_read_once_and_rejects_are_written() {
    for cloud in Cloud::ALL {
        let store = StandIn::start(cloud);
        let folder = tempfile::tempdir().unwrap();
        // More keys than a page of the listing has.
        for number in 0..12 {
            store.put(
                &format!("in/a b&{number:02}/t.csv"),
                format!("a\n{number}\nx\n").as_bytes(),
            );
        }
        store.put("in/100% #1?+\u{e9}=~.csv", b"a\n12\nx\n");
        store.put("in//unusable.csv", b"a\n99\n");
        store.put("other/t.csv", b"a\n77\n");
        let (output, summary) = run(folder.path(), &store, &tables(&store), &[]);
        assert_done(&output);
        assert_eq!(values(&store), (0..13).collect::<Vec<_>>(), "{cloud:?}");
        assert_eq!(
            (&summary["records"], &summary["rejects"]),
            (&26.into(), &13.into()),
            "{summary}"
        );
        assert_eq!(
            summary["stages"][0]["passed_over"]["unusable_keys"], 1,
            "{summary}"
        );
        let rejects = store.keys("out/_latentflow/rejects");
        assert!(!rejects.is_empty(), "{:?}", store.keys("out/"));

        store.put("in/z.csv", b"a\n13\n");
        let (again, resumed) = run(folder.path(), &store, &tables(&store), &[]);
        assert_done(&again);
        assert_eq!(values(&store), (0..14).collect::<Vec<_>>(), "{cloud:?}");
        assert_eq!(resumed["records"].as_u64(), Some(1), "{resumed}");
        assert_eq!(store.unfinished(), 0, "{cloud:?}");
    }
}

#[test]
fn kills_lose_no_record_and_duplicate_none_in_any_cloud() {
    const ROWS: u32 = 200_000;
    for cloud in Cloud::ALL {
        let store = StandIn::start(cloud);
        let folder = tempfile::tempdir().unwrap();
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        eprintln!("seed {seed}");
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let pipeline = numbers(&store, ROWS, 64, "bytes = \"20MiB\"")
            + "row_group = { bytes = \"1MiB\" }\ncompression = \"none\"\n";
        let mut hits = 0;
        for _ in 0..6 {
            let mut child = start(folder.path(), &store, &pipeline);
            while store.unfinished() == 0 && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
            child.kill().unwrap();
            child.wait().unwrap();
            hits += usize::from(store.unfinished() > 0);
            let present = rows(&store, "out/");
            assert!(present.is_sorted_by(|a, b| a < b), "a row is duplicated");
        }
        assert!(hits > 0, "no kill hit an upload");
        let (output, _) = run(folder.path(), &store, &pipeline, &[]);
        assert_done(&output);
        assert_eq!(
            rows(&store, "out/"),
            (0..u64::from(ROWS)).collect::<Vec<_>>(),
            "{cloud:?}"
        );
        let records = store.keys("out/_latentflow/upload-");
        assert!(records.is_empty(), "{cloud:?}: {records:?}");
    }
}

/// The completion of the first run is in transit while the second run starts and ends.
#[test]
fn late_completion_of_an_earlier_run_adds_no_file() {
    // A file of 10 records is smaller than every buffer before the store.
    let cases = Cloud::ALL
        .into_iter()
        .flat_map(|cloud| [(cloud, 3000), (cloud, 10)]);
    for (cloud, count) in cases {
        let store = StandIn::start(cloud);
        let folder = tempfile::tempdir().unwrap();
        let pipeline = numbers(&store, count, 16, "records = 3000");
        store.hold_next_completion();
        let mut first = start(folder.path(), &store, &pipeline);
        while !store.holds_a_completion() && first.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (second, _) = run(folder.path(), &store, &pipeline, &[]);
        assert_done(&second);
        store.release();
        let first = first.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&first.stderr).into_owned();
        assert_eq!(first.status.code(), Some(1), "{cloud:?}: {text}");
        assert!(
            text.contains("error[output_fenced]") && text.contains("its epoch is 2"),
            "{cloud:?}: {text}"
        );
        assert!(
            store.refused() > 0,
            "{cloud:?}: the completion was executed"
        );
        assert_eq!(
            rows(&store, "out/"),
            (0..u64::from(count)).collect::<Vec<_>>(),
            "{cloud:?}"
        );
        let keys = data_keys(&store, "out/");
        assert!(
            keys.iter().all(|key| key.ends_with("-e000002.parquet")),
            "{cloud:?}: {keys:?}"
        );
    }
}

#[test]
fn completion_with_lost_response_is_recognized() {
    for cloud in Cloud::ALL {
        let store = StandIn::start(cloud);
        let folder = tempfile::tempdir().unwrap();
        store.lose_responses(2);
        let pipeline = numbers(&store, 3000, 16, "records = 1000");
        let (output, _) = run(folder.path(), &store, &pipeline, &[]);
        assert_done(&output);
        assert_eq!(store.refused(), 2, "{cloud:?}");
        assert_eq!(rows(&store, "out/"), (0..3000).collect::<Vec<_>>());
        assert_eq!(data_keys(&store, "out/").len(), 3, "{cloud:?}");
    }
}

#[test]
fn empty_object_of_a_killed_abort_is_removed() {
    let store = StandIn::start(Cloud::Azure);
    let folder = tempfile::tempdir().unwrap();
    let late = "out/part-00000-e000001.parquet";
    store.put(late, b"");
    store.put("out/_latentflow/epoch-000001", b"{}");
    let record = serde_json::to_vec(&(late, "")).unwrap();
    store.put("out/_latentflow/upload-000001", &record);
    let (output, _) = run(
        folder.path(),
        &store,
        &numbers(&store, 100, 4, "records = 100"),
        &[],
    );
    assert_done(&output);
    assert_eq!(
        data_keys(&store, "out/"),
        ["out/part-00000-e000002.parquet"]
    );
    assert_eq!(rows(&store, "out/"), (0..100).collect::<Vec<_>>());
}

#[test]
fn credentials_and_missing_access_are_reported_without_secrets() {
    for cloud in Cloud::ALL {
        let store = StandIn::start(cloud);
        let folder = tempfile::tempdir().unwrap();
        store.put("in/a.csv", b"a\n1\n");
        let denied = tables(&store).replace("stand-in/out", "no-such-bucket/out");
        std::fs::write(folder.path().join("p.toml"), tables(&store)).unwrap();
        std::fs::write(folder.path().join("denied.toml"), denied).unwrap();
        let mut log = Vec::new();
        for (arguments, code) in [(["run", "p.toml"], 0), (["run", "denied.toml"], 1)] {
            let mut command = latentflow(folder.path(), &store, &arguments);
            let output = command.env("RUST_LOG", "trace").output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{cloud:?}: {text}");
            log.extend([output.stdout, output.stderr].concat());
        }
        let text = String::from_utf8_lossy(&log).into_owned();
        assert!(text.contains("the store denied access"), "{cloud:?}");
        assert!(!text.contains(SECRET), "{cloud:?}");
    }
}

#[test]
fn invalid_settings_name_their_variables() {
    for (cloud, variable, value, expected) in [
        (
            Cloud::Gcs,
            "GOOGLE_ALLOW_HTTP",
            "false",
            "set GOOGLE_ALLOW_HTTP=true",
        ),
        (
            Cloud::Azure,
            "AZURE_ALLOW_HTTP",
            "false",
            "set AZURE_ALLOW_HTTP=true",
        ),
        (
            Cloud::Azure,
            "AZURE_MAX_ATTEMPTS",
            "none",
            "AZURE_MAX_ATTEMPTS is `none`",
        ),
        (
            Cloud::Gcs,
            "GOOGLE_READ_TIMEOUT",
            "soon",
            "GOOGLE_READ_TIMEOUT is `soon`",
        ),
    ] {
        let store = StandIn::start(cloud);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.toml"), tables(&store)).unwrap();
        let mut command = latentflow(folder.path(), &store, &["check", "p.toml"]);
        let output = command.env(variable, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
