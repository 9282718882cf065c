//! Tests of runs through the binary, and of the errors of pipeline files.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::{Expect, expect};
use latentflow::registry::ComponentKind;
use latentflow::{sink, source, transform};

use crate::common::outputs::data_files;
use crate::common::runs::{latentflow, run};

fn check(pipeline: &str, expected: &Expect) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let output = latentflow(folder.path(), &["check", "p.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    expected.assert_eq(&without_kinds(&String::from_utf8_lossy(&output.stderr)));
}

/// A message in which `SOURCES`, `TRANSFORMS` and `SINKS` replace the names of all kinds.
fn without_kinds(text: &str) -> String {
    fn names<P>(kinds: &[ComponentKind<P>]) -> String {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        names.join(", ")
    }
    text.replace(&names(source::registry::KINDS), "SOURCES")
        .replace(&names(transform::registry::KINDS), "TRANSFORMS")
        .replace(&names(sink::registry::KINDS), "SINKS")
}

/// A pipeline of synthetic images through the shipped model into `out`.
fn images(records: u32) -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-ae");
    format!(
        "[models.photo]\npath = {models:?}\n\
         [stages.photos]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = {records}\n\
         batch = {{ records = 32 }}\n\
         [stages.pixels]\nkind = \"pixels\"\ninputs = [\"photos\"]\nmodel = \"photo\"\n\
         [stages.latents]\nkind = \"encode\"\ninputs = [\"pixels\"]\nmodel = \"photo\"\n\
         reconstruct = true\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"latents\"]\npath = \"out\"\n\
         file = {{ records = 64 }}\n"
    )
}

#[test]
fn output_is_independent_of_workers_sessions_and_encoders() {
    let groups = "stages.out.row_group.records=20";
    let settings: [&[&str]; 4] = [
        &["--workers", "1"],
        &["--workers", "3"],
        &["--workers", "3", "--set", "runtime.sessions=shared"],
        &["--workers", "2", "--set", "stages.out.row_group.encoders=2"],
    ];
    let [one, others @ ..] = settings.map(|setting| {
        let folder = tempfile::tempdir().unwrap();
        let (output, summary) = run(
            folder.path(),
            &images(300),
            &[setting, &["--set", groups]].concat(),
        );
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            (&summary["records"], &summary["rejects"]),
            (&300.into(), &0.into())
        );
        let files = data_files(&folder.path().join("out")).into_iter();
        files
            .map(|path| {
                (
                    path.file_name().unwrap().to_owned(),
                    std::fs::read(path).unwrap(),
                )
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(one.len(), 5, "a file of 64 records holds two batches of 32");
    for (setting, other) in settings[1..].iter().zip(&others) {
        assert!(one == *other, "{setting:?}: files differ");
    }
}

#[test]
fn second_run_continues_a_limited_one_and_third_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first) = run(folder.path(), &images(100), &["--limit", "40"]);
    let (_, second) = run(folder.path(), &images(100), &[]);
    let (output, third) = run(folder.path(), &images(100), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        [&first["records"], &second["records"], &third["records"]],
        [40, 60, 0]
    );
    assert_eq!(third["done_before"], 100);
}

#[test]
fn added_sink_catches_up_next_to_a_complete_one() {
    let folder = tempfile::tempdir().unwrap();
    let made = "[stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 40\n\
                batch = { records = 8 }\n\
                [stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [16, 16]\n\
                [stages.files]\nkind = \"images\"\ninputs = [\"pixels\"]\npath = \"files\"\n";
    let added = "[stages.out]\nkind = \"parquet\"\ninputs = [\"pixels\"]\npath = \"out\"\n";
    let files = || {
        walkdir::WalkDir::new(folder.path().join("files"))
            .into_iter()
            .map(Result::unwrap)
            .filter(is_png)
            .count()
    };
    run(folder.path(), made, &["--limit", "24"]);
    assert_eq!(files(), 24);
    let (output, summary) = run(folder.path(), &format!("{made}{added}"), &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!((&summary["records"], files()), (&40.into(), 40));
}

fn is_png(entry: &walkdir::DirEntry) -> bool {
    entry
        .path()
        .extension()
        .is_some_and(|extension| extension == "png")
}

#[test]
fn output_of_changed_pipeline_is_refused_with_the_option() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &images(10), &[]);
    let other = images(10).replace("records = 10", "records = 10\nseed = 9");
    let (output, _) = run(folder.path(), &other, &[]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("out: ") && text.contains("`seed` of the stage `photos` was 0 and is 9 now"),
        "{text}"
    );
}

#[test]
fn killed_runs_lose_no_record_and_duplicate_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), images(2000)).unwrap();
    let mut kills = 0;
    for milliseconds in [40, 150, 250, 350, 450] {
        let mut child = latentflow(folder.path(), &["run", "p.toml"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "every run ended before its kill");
    let (output, summary) = run(folder.path(), &images(2000), &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        summary["done_before"].as_u64().unwrap() + summary["records"].as_u64().unwrap(),
        2000
    );
    let inspect = latentflow(folder.path(), &["inspect", "out"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inspect.stdout).into_owned();
    assert!(text.contains("2000 in "), "{text}");
    assert!(text.contains(": 0..2000"), "{text}");
}

#[test]
fn too_many_broken_images_give_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("in/a.ppm"), b"P6 1 1 255\n\x01\x02\x03").unwrap();
    std::fs::write(folder.path().join("in/b.png"), b"not an image").unwrap();
    std::fs::write(folder.path().join("in/c.jpg"), b"").unwrap();
    let pipeline = "[stages.files]\nkind = \"images\"\npath = \"in\"\n\
        [stages.pixels]\nkind = \"pixels\"\ninputs = [\"files\"]\nsize = [8, 8]\n\
        [stages.out]\nkind = \"parquet\"\ninputs = [\"pixels\"]\npath = \"out\"\n\
        [rejects]\npath = \"bad\"\nmax_share = 0.5\n";
    let (output, summary) = run(folder.path(), pipeline, &[]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        (&summary["records"], &summary["rejects"]),
        (&3.into(), &2.into())
    );
    assert_eq!(
        (
            data_files(&folder.path().join("out")).len(),
            data_files(&folder.path().join("bad")).len()
        ),
        (1, 1)
    );
}

#[test]
fn records_flow_from_csv_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("in.csv"),
        "a,b\n1,x\n2,y\nthree,z\n4\n5,w\n",
    )
    .unwrap();
    let pipeline = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\ntypes = { a = \"int\" }\n\
        [stages.big]\nkind = \"filter\"\ninputs = [\"in\"]\ncolumn = \"a\"\nabove = 1\n\
        [stages.out]\nkind = \"stdout\"\ninputs = [\"big\"]\n";
    std::fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let output = latentflow(folder.path(), &["run", "p.toml", "--summary", "none"])
        .output()
        .unwrap();
    let expected = "{\"source\":\"in.csv\",\"row\":1,\"a\":2,\"b\":\"y\"}\n\
                    {\"source\":\"in.csv\",\"row\":4,\"a\":5,\"b\":\"w\"}\n";
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn metrics_are_served_during_a_run_and_a_signal_drains_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), images(1_000_000)).unwrap();
    let arguments = [
        "run",
        "p.toml",
        "--metrics",
        "127.0.0.1:0",
        "--log-format",
        "text",
    ];
    let mut child = latentflow(folder.path(), &arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = log
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("metrics at")))
        .unwrap()
        .unwrap();
    let address = line
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let mut text = String::new();
    // The counter of records increases before the histogram of errors.
    while ![
        "latentflow_records_out_total{kind=\"encode\",stage=\"latents\"}",
        "latentflow_reconstruction_error_bucket{",
    ]
    .iter()
    .all(|metric| text.contains(metric))
    {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .unwrap();
        text.clear();
        stream.read_to_string(&mut text).unwrap();
    }
    assert!(text.contains("latentflow_build_info{"), "{text}");
    assert!(
        Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    log.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(
        !data_files(&folder.path().join("out")).is_empty(),
        "the records that were read are committed"
    );
}

#[test]
fn all_errors_of_a_pipeline_are_reported_together() {
    check(
        "wokers = 3\n[stages.in]\nkind = \"imagess\"\n[stages.src]\nkind = \"images\"\n\
         path = \"x\"\nbatch = { bytes = \"12\" }\n\
         [stages.px]\nkind = \"pixels\"\ninputs = [\"src\"]\nsiez = [3, 3]\n[stages.out]\n\
         kind = \"parquet\"\ninputs = [\"px\", \"nowhere\"]\npath = 5\n",
        &expect![[r#"
            p.toml:1: wokers: unknown key (did you mean `workers`?); known: admin, commit, limits, models, name, rejects, runtime, shutdown, stages, state, workers
            p.toml:3: stages.in.kind: unknown kind `imagess` (did you mean `images`?); sources: SOURCES; transforms: TRANSFORMS; sinks: SINKS
            p.toml:7: stages.src.batch.bytes: `12` has no unit; write a size such as "32MiB" or "512B"
            p.toml:11: stages.px.siez: unknown key (did you mean `size`?); known: channels, color_space, column, decode, fit, keep, layout, mean, model, preprocessor, preset, range, size, std, steps, to, value_range
            p.toml:14: stages.out.inputs: unknown stage `nowhere`; known: in, px, src
            p.toml:15: stages.out.path: invalid type: integer `5`, expected path string
            latentflow: error[pipeline_invalid]: nothing was started
        "#]],
    );
    check(
        "[stages.a]\nkind = \"select\"\ninputs = [\"b\"]\n[stages.b]\nkind = \"select\"\n\
         inputs = [\"a\"]\n",
        &expect![[r#"
            p.toml:6: stages.b.inputs: the inputs form a cycle: b -> a -> b; remove one of these inputs
            latentflow: error[pipeline_invalid]: nothing was started
        "#]],
    );
    check(
        "[stages.a]\nkind = \"images\"\nkind = \"csv\"\n",
        &expect![[r#"
        p.toml:3: duplicate key
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
    check(
        "[stages.a]\nkind = \"images\"\npath = \"x\"\n",
        &expect![[r#"
        p.toml:1: stages.a: no stage takes its output; name it in the `inputs` of a stage, such as a sink (SINKS)
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
    check(
        "name = \"empty\"\n",
        &expect![[r#"
        p.toml: no stages: a pipeline needs at least a source and a sink; see `latentflow init`
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
    check(
        "[stages.s]\nkind = \"stdout\"\n[stages.t]\nkind = \"encode\"\n",
        &expect![[r#"
        p.toml:1: stages.s: `inputs` is missing; `stdout` requires the name of a stage that it reads from
        p.toml:3: stages.t: `inputs` is missing; `encode` requires the name of a stage that it reads from
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
}

/// Runs a command with these arguments and variables on the file `p.toml` in `folder`, and asserts
/// exit code 2 and its messages.
fn assert_refused(
    folder: &Path,
    arguments: &[&str],
    variable: Option<(&str, &str)>,
    expected: &Expect,
) {
    let mut command = latentflow(folder, arguments);
    let output = command.envs(variable).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    // The last line states the code, which has a test of its own.
    let (faults, last) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(last.ends_with("]: nothing was started"), "{text}");
    expected.assert_eq(&format!("{faults}\n"));
}

/// Synthetic images into a Parquet dataset, with one model.
const OVERRIDDEN: &str = "[models.photo]\npath = \"ae\"\n\
                          [stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 1\n\
                          [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n";

#[test]
fn mistyped_override_is_blamed_on_its_option_or_variable() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = OVERRIDDEN.replace("[models.photo]\npath = \"ae\"\n", "");
    std::fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let set = |pair: &str, expected: &Expect| {
        assert_refused(
            folder.path(),
            &["check", "p.toml", "--set", pair],
            None,
            expected,
        );
    };
    set(
        "stages.oot.path=x",
        &expect![[r#"
            --set stages.oot.path=x: stages.oot: unknown stage `oot` (did you mean `out`?); known: in, out; a new stage requires `kind`
        "#]],
    );
    set(
        "stagess.out.path=x",
        &expect![[r#"
            --set stagess.out.path=x: stagess: unknown key (did you mean `stages`?); known: admin, commit, limits, models, name, rejects, runtime, shutdown, stages, state, workers
        "#]],
    );
    set(
        "stages.out.columns=[1]",
        &expect![[r#"
            --set stages.out.columns=[1]: stages.out.columns[0]: invalid type: integer `1`, expected a string
        "#]],
    );
    set(
        "stages.out.path",
        &expect![[r#"
            --set stages.out.path: expected key=value, such as stages.out.path=out
        "#]],
    );
    let run = |option: &str, value: &str, expected: &Expect| {
        assert_refused(
            folder.path(),
            &["run", "p.toml", option, value],
            None,
            expected,
        );
    };
    run(
        "--workers",
        "5000",
        &expect![[r#"
            --workers 5000: workers: 5000 is too many; a pipeline has at most 1024 workers, and needs about one per core
        "#]],
    );
    run(
        "--metrics",
        "0.0.0.0:1",
        &expect![[r#"
            --metrics 0.0.0.0:1: admin.listen: 0.0.0.0:1 can be reached from other machines; add token = { file = "..." }, or allow_unauthenticated = true if the network admits only trusted clients
        "#]],
    );
    let variable = |name: &str, expected: &Expect| {
        assert_refused(
            folder.path(),
            &["check", "p.toml"],
            Some((name, "x")),
            expected,
        );
    };
    variable(
        "LATENTFLOW__STAGES__OOT__PATH",
        &expect![[r#"
            environment variable LATENTFLOW__STAGES__OOT__PATH: stages.oot: unknown stage `oot` (did you mean `out`?); known: in, out; a new stage requires `kind`
        "#]],
    );
    variable(
        "LATENTFLOW__REJECT__PATH",
        &expect![[r#"
            environment variable LATENTFLOW__REJECT__PATH: reject: unknown key (did you mean `rejects`?); known: admin, commit, limits, models, name, rejects, runtime, shutdown, stages, state, workers
        "#]],
    );
    variable(
        "LATENTFLOW__",
        &expect![[r#"
            environment variable LATENTFLOW__: `` is not a key; expected parts separated by dots, such as stages.out.path
        "#]],
    );
}

#[test]
fn override_of_unknown_model_is_not_a_new_unused_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-ae");
    std::os::unix::fs::symlink(model, folder.path().join("ae")).unwrap();
    std::fs::write(folder.path().join("p.toml"), OVERRIDDEN).unwrap();
    assert_refused(
        folder.path(),
        &["check", "p.toml", "--set", "models.photos.path=ae"],
        None,
        &expect![[r#"
            --set models.photos.path=ae: models.photos: no stage uses the model `photos` (did you mean `photo`?); models of the file: photo
        "#]],
    );
}

#[test]
fn whole_stage_may_be_added_by_overrides() {
    let folder = tempfile::tempdir().unwrap();
    let (output, summary) = run(
        folder.path(),
        "[stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 3\n",
        &[
            "--set",
            "stages.all.kind=discard",
            "--set",
            "stages.all.inputs=[\"in\"]",
        ],
    );
    assert_eq!(
        (output.status.code(), &summary["records"]),
        (Some(0), &3.into()),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn files_of_other_commands_are_answered_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("p.toml", OVERRIDDEN);
    write(
        "t.toml",
        "name = \"t\"\n[network]\nnodes = [8]\n[data]\nsources = []\n",
    );
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let card = std::fs::read_to_string(models.join("kdd-ae/model.toml")).unwrap();
    write("model.toml", &card);
    for command in ["run", "check", "graph"] {
        assert_refused(
            folder.path(),
            &[command, "t.toml"],
            None,
            &expect![[r#"
                t.toml: is a training file, because it has [network], [data] and no stages; use `latentflow train t.toml`
            "#]],
        );
    }
    assert_refused(
        folder.path(),
        &["run", "model.toml"],
        None,
        &expect![[r#"
            model.toml: is the card of a model; `latentflow inspect .` describes the model, and a pipeline uses it with path = "." in its table of [models]; expected a pipeline file (TOML), such as `latentflow init` prints
        "#]],
    );
    assert_refused(
        folder.path(),
        &["run", "q.toml"],
        None,
        &expect![[r#"
            q.toml: does not exist (did you mean `p.toml`?)
        "#]],
    );
}

#[cfg(feature = "train")]
#[test]
fn pipeline_given_to_train_is_answered_with_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), OVERRIDDEN).unwrap();
    assert_refused(
        folder.path(),
        &["train", "p.toml"],
        None,
        &expect![[r#"
            p.toml: is a pipeline file, because it has stages and no network; use `latentflow run p.toml`
        "#]],
    );
    let file = "name = \"t\"\n[network]\nnodes = [2]\n[[data.sources]]\nkind = \"images\"\n\
                path = \"nowhere\"\n[input]\ntype = \"image\"\nsize = [4, 4]\n";
    std::fs::write(folder.path().join("t.toml"), file).unwrap();
    assert_refused(
        folder.path(),
        &["train", "t.toml", "--set", "trainig.epochs=1"],
        None,
        &expect![[r#"
            --set trainig.epochs=1: trainig: unknown key; known: beta, beta_warmup, code_size, contraction, description, kind, loss, name, seed; tables: input, network, sparsity, corruption, training, data
        "#]],
    );
    assert_refused(
        folder.path(),
        &[
            "train",
            "t.toml",
            "--set",
            "code_size=2",
            "--data",
            "elsewhere",
        ],
        None,
        &expect![[r#"
            t.toml:6: data.sources[0].path: `elsewhere/nowhere` does not exist; expected a folder, a file, or a glob such as `photos/**/*.jpg`
        "#]],
    );
}

#[test]
fn missing_input_is_refused_before_an_output_exists() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::write(folder.join("empty/notes.txt"), "x").unwrap();
    let pipeline = |path: &str, kind: &str| {
        let text = format!(
            "[stages.in]\nkind = \"{kind}\"\npath = \"{path}\"\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n"
        );
        std::fs::write(folder.join("p.toml"), text).unwrap();
    };
    for kind in ["images", "tar"] {
        pipeline("photos", kind);
        for command in ["check", "run"] {
            assert_refused(
                folder,
                &[command, "p.toml"],
                None,
                &expect![[r#"
                    p.toml:3: stages.in.path: `photos` does not exist; expected a folder, a file, or a glob such as `photos/**/*.jpg`
                "#]],
            );
        }
        assert_refused(
            folder,
            &["check", "p.toml", "--set", "stages.in.path=pictures/*.jpg"],
            None,
            &expect![[r#"
                --set stages.in.path=pictures/*.jpg: stages.in.path: `pictures/*.jpg` does not exist; expected a folder, a file, or a glob such as `photos/**/*.jpg`
            "#]],
        );
    }
    for command in ["check", "run"] {
        pipeline("empty", "tar");
        assert_refused(
            folder,
            &[command, "p.toml"],
            None,
            &expect![[r#"
                p.toml:3: stages.in.path: `empty`: skips 1 .txt; files scanned: 1; none has the extension tar, tar.gz, tgz, tar.zst
            "#]],
        );
        pipeline("empty/*.jpg", "images");
        assert_refused(
            folder,
            &[command, "p.toml"],
            None,
            &expect![[r#"
                p.toml:3: stages.in.path: `empty/*.jpg`: skips 1 not matched by the glob; files scanned: 1; none matches
            "#]],
        );
    }
    assert!(!folder.join("out").exists());
}

#[test]
fn emptied_folder_of_a_finished_run_is_not_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("in")).unwrap();
    std::fs::write(folder.join("in/a.pgm"), b"P5 1 1 255\n0").unwrap();
    let pipeline = "[stages.in]\nkind = \"images\"\npath = \"in\"\n\
                    [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n";
    assert_eq!(run(folder, pipeline, &[]).0.status.code(), Some(0));
    std::fs::remove_file(folder.join("in/a.pgm")).unwrap();
    let check = latentflow(folder, &["check", "p.toml"]).output().unwrap();
    assert_eq!(check.status.code(), Some(0));
    assert_eq!(run(folder, pipeline, &[]).0.status.code(), Some(0));
}

/// A source of synthetic images called `in`, and pixels of 32x32 called `px`.
const PIXELS: &str = "[stages.in]\nkind = \"synthetic\"\ncontent = \"images\"\nrecords = 1\n\
                      [stages.px]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [32, 32]\n";

#[test]
fn errors_between_stages_are_reported_before_the_start() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-ae");
    let model = format!("[models.photo]\npath = {models:?}\n");
    let encode = "[stages.z]\nkind = \"encode\"\ninputs = [\"px\"]\nmodel = \"photo\"\n\
                  [stages.out]\nkind = \"stdout\"\ninputs = [\"z\"]\n";
    check(
        &format!("{model}{PIXELS}{encode}"),
        &expect![[r#"
        p.toml:11: stages.z.column: column `pixels`: its records have the shape [3, 32, 32], but the model `photo` takes [3, 64, 64]
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
    check(
        &format!("{PIXELS}{encode}"),
        &expect![[r#"
        p.toml:12: stages.z.model: no model `photo`: the pipeline declares none; add [models.photo]
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
    let sink = |columns: &str| {
        format!("{PIXELS}[stages.out]\nkind = \"parquet\"\ninputs = [{columns}]\npath = \"o\"\n")
    };
    check(
        &sink("\"in\", \"px\""),
        &expect![[r#"
        p.toml:11: stages.out.inputs: `in` has the columns source, row, image, but `px` has source, row, pixels; the inputs of a stage must have the same columns; a `select` stage can select and rename them
        latentflow: error[pipeline_invalid]: nothing was started
    "#]],
    );
    check(
        &format!(
            "{}columns = [\"pixel\"]\n[stages.more]\nkind = \"stdout\"\ninputs = [\"out\"]\n",
            sink("\"px\"")
        ),
        &expect![[r#"
            p.toml:13: stages.out.columns: no column `pixel` (did you mean `pixels`?); the input has: source, row, pixels
            p.toml:16: stages.more.inputs: `out` is a sink and has no output; name a source or a transform
            latentflow: error[pipeline_invalid]: nothing was started
        "#]],
    );
    check(
        &format!(
            "{}[limits]\nmemory = 5\n[rejects]\nmax_share = 2\n[runtime]\nproviders = [\"gpu\"]\n",
            sink("\"px\"")
        ),
        &expect![[r#"
            p.toml:14: limits.memory: invalid type: integer `5`, expected a string; sizes carry a unit, such as "32MiB"
            p.toml:16: rejects.max_share: 2 is not a share; expected a number from 0 to 1
            p.toml:18: runtime.providers[0]: unknown variant `gpu`, expected one of `cpu`, `cuda`, `tensorrt`, `openvino`, `coreml`
            latentflow: error[pipeline_invalid]: nothing was started
        "#]],
    );
}

/// The telemetry of ONNX Runtime, which must be disabled, writes a file to the home folder.
#[test]
fn telemetry_of_onnx_runtime_is_disabled() {
    let home = tempfile::tempdir().unwrap();
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/kdd-ae");
    let mut command = latentflow(home.path(), &["inspect", model.to_str().unwrap()]);
    let output = command
        .env("HOME", home.path())
        .env_remove("XDG_CACHE_HOME")
        .env_remove("ORT_DISABLE_TELEMETRY");
    let output = output.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn every_command_states_the_code_of_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let source = "[stages.in]\nkind = 'csv'\npath = 'missing.csv'\n[stages.out]\nkind = 'discard'\n\
                  inputs = ['in']\n";
    std::fs::write(root.join("p.toml"), source).unwrap();
    std::fs::create_dir(root.join("empty")).unwrap();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-ae");
    let photos = photos.to_str().unwrap();
    let cases: [(&[&str], &str); 10] = [
        (&["run", "p.toml"], "input_not_found"),
        (&["run", "nothing.toml"], "pipeline_invalid"),
        (&["inspect", "nothing"], "argument_invalid"),
        (&["report", "nothing"], "argument_invalid"),
        (
            &["report", photos, "--no-data", "--out", "p.toml/r.html"],
            "io",
        ),
        (&["evaluate", "nothing"], "argument_invalid"),
        (
            &["evaluate", photos, "--source", "nothing.csv"],
            "argument_invalid",
        ),
        (&["compact", "nothing"], "argument_invalid"),
        (
            &["rejects", "purge", "nothing", "--source", "a", "--yes"],
            "pipeline_invalid",
        ),
        (&["reset", "nothing.toml", "--yes"], "pipeline_invalid"),
    ];
    for (arguments, code) in cases {
        let output = latentflow(root, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains(&format!("latentflow: error[{code}]: ")),
            "{arguments:?}: {text}"
        );
    }
}
