//! Tests of trainings through the binary: every kind of autoencoder, kills and stops, and messages.
#![cfg(feature = "train")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::runs::{errors, latentflow, run};

const FEATURES: &str = "[data]\nvalidation = 0.2\n[[data.sources]]\n\
                        kind = 'synthetic'\ncontent = 'features'\nrecords = 400\nwidth = 8\n";
const IMAGES: &str = "[data]\nvalidation = 0.2\n[[data.sources]]\n\
                      kind = 'synthetic'\ncontent = 'images'\nrecords = 40\nsize = [16, 16]\n";

/// Every kind of autoencoder: its name, its training file, and whether it has a code.
fn kinds() -> Vec<(&'static str, String, bool)> {
    let features = |text: &str| {
        format!(
            "{text}\n[training]\nepochs = 2\nbatch_size = 32\n[input]\ntype = 'features'\n\
             {FEATURES}"
        )
    };
    let images = |text: &str| {
        format!(
            "{text}\n[training]\nepochs = 1\nbatch_size = 8\n[input]\ntype = 'image'\n\
             size = [16, 16]\n{IMAGES}"
        )
    };
    let original_size = |text: &str| {
        format!(
            "{text}\n[training]\nepochs = 1\nbatch_size = 8\ncrop = 8\ncrops = 2\nflips = 'all'\n\
             [input]\ntype = 'image'\n{IMAGES}"
        )
    };
    vec![
        ("vanilla", features("kind = 'vanilla'\ncode_size = 3"), true),
        (
            "deep",
            features(
                "kind = 'deep'\ncode_size = 2\n[network]\nnodes = [6, 4]\nactivation = 'silu'",
            ),
            true,
        ),
        (
            "sparse",
            features(
                "kind = ['sparse', 'deep']\ncode_size = 12\n[network]\nnodes = [16]\n[sparsity]\n\
                 penalty = 'l1'",
            ),
            true,
        ),
        (
            "sparse-kl",
            features("kind = 'sparse'\ncode_size = 12\n[sparsity]\npenalty = 'kl'\ntarget = 0.1"),
            true,
        ),
        (
            "masked",
            features(
                "kind = 'denoising'\ncode_size = 4\n[corruption]\nnoise = 'masking'\nrate = 0.2",
            ),
            true,
        ),
        (
            "bce",
            images("kind = 'deep'\ncode_size = 4\nloss = 'bce'\n[network]\nnodes = [32]"),
            true,
        ),
        (
            "l1",
            features("kind = 'deep'\ncode_size = 4\nloss = 'l1'\n[network]\nnodes = [16]"),
            true,
        ),
        (
            "charbonnier",
            images("kind = 'deep'\ncode_size = 4\nloss = 'charbonnier'\n[network]\nnodes = [32]"),
            true,
        ),
        (
            "convolutional",
            images(
                "kind = 'convolutional'\ncode_size = 8\n[network]\nchannels = [8, 16]\nblocks = 1",
            ),
            true,
        ),
        (
            "everything",
            images(
                "kind = ['sparse', 'convolutional', 'denoising']\ncode_size = 8\n[network]\n\
                 channels = [8, 8]\nnodes = [16]\n\
                 [sparsity]\npenalty = 'kl'\n[[corruption]]\nnoise = 'salt_and_pepper'\n\
                 rate = 0.1\n[[corruption]]\n\
                 noise = 'gaussian'\nsigma = [0, 25]",
            ),
            true,
        ),
        (
            "variational",
            features(
                "kind = ['variational', 'deep']\ncode_size = 3\nbeta = 0.5\nbeta_warmup = 1\n\
                 [network]\nnodes = [6]\nnormalization = 'layer'",
            ),
            true,
        ),
        (
            "variational-images",
            images(
                "kind = ['variational', 'convolutional']\ncode_size = 8\nloss = 'bce'\n\
                 [network]\nchannels = [8, 8]\nnormalization = 'batch'",
            ),
            true,
        ),
        (
            "contractive",
            features(
                "kind = ['contractive', 'deep']\ncode_size = 3\ncontraction = 0.1\n[network]\n\
                 nodes = [6]\nactivation = 'tanh'\ntied = true",
            ),
            true,
        ),
        (
            "u-net",
            original_size(
                "kind = ['denoising', 'convolutional']\n[network]\nchannels = [8, 8, 16]\n\
                 skips = 'concat'\nnormalization = 'batch'\nresidual = true\n\
                 decoder = { channels = [8, 4, 4] }\n[corruption]\nnoise = 'gaussian'\n\
                 sigma = 25",
            ),
            false,
        ),
        (
            "normal-blocks",
            original_size(
                "kind = ['denoising', 'convolutional']\n[network]\nchannels = [8, 8]\n\
                 blocks = 1\nnormalization = 'layer'\n[corruption]\nnoise = 'gaussian'\n\
                 sigma = 25",
            ),
            false,
        ),
        (
            "denoise",
            original_size(
                "kind = ['denoising', 'convolutional']\n[network]\nchannels = [8, 8]\nblocks = 1\n\
                 residual = true\n[corruption]\nnoise = 'gaussian'\nsigma = 25",
            ),
            false,
        ),
        (
            "dewatermark",
            original_size(
                "kind = ['denoising', 'convolutional']\n[network]\nchannels = [8, 8]\n\
                 space_to_depth = true\n[corruption]\nnoise = 'watermark'",
            ),
            false,
        ),
        (
            "colorize",
            original_size(
                "kind = ['denoising', 'convolutional']\n[network]\nchannels = [8, 8, 8]\n\
                 skips = false\n[corruption]\nnoise = 'gray'",
            ),
            false,
        ),
    ]
}

fn train(folder: &Path, name: &str, text: &str, arguments: &[&str]) -> Command {
    std::fs::write(
        folder.join(format!("{name}.toml")),
        format!("name = '{name}'\n{text}"),
    )
    .unwrap();
    let file = format!("{name}.toml");
    latentflow(
        folder,
        &[&["train", &file, "--threads", "1"], arguments].concat(),
    )
}

#[test]
fn every_kind_trains_a_model_that_runs_in_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, has_code) in kinds() {
        let output = train(folder.path(), name, &text, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {}", errors(&output));
        assert!(
            !folder.path().join(name).join(".training").exists(),
            "{name}: the training folder is removed at the end"
        );
        let features = text.contains("type = 'features'");
        let (source, prepare) = if features {
            (
                "content = \"features\"\nrecords = 50\nwidth = 8\n",
                "features",
            )
        } else {
            (
                "content = \"images\"\nrecords = 10\nsize = [16, 16]\n",
                "pixels",
            )
        };
        let kind = if has_code { "encode" } else { "denoise" };
        let prepare = if features {
            format!("kind = \"{prepare}\"\ncolumns = [\"features\"]\nto = \"x\"")
        } else {
            format!("kind = \"{prepare}\"")
        };
        let pipeline = format!(
            "[models.m]\npath = \"{name}\"\n[stages.in]\nkind = \"synthetic\"\n\
             {source}[stages.ready]\n{prepare}\n\
             model = \"m\"\ninputs = [\"in\"]\n[stages.run]\nkind = \"{kind}\"\nmodel = \"m\"\n\
             inputs = [\"ready\"]\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"run\"]\npath = \"out-{name}\"\n"
        );
        let (run_output, summary) = run(folder.path(), &pipeline, &[]);
        assert_eq!(
            run_output.status.code(),
            Some(0),
            "{name}: {}",
            errors(&run_output)
        );
        assert_eq!(summary["rejects"], 0, "{name}: {summary}");
    }
    check_by_onnx(folder.path());
}

/// Runs the official checker on every ONNX file in the folders below.
fn check_by_onnx(folder: &Path) {
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/onnx-checker");
    if !checker.exists() {
        eprintln!("SKIPPED: the official ONNX checker is missing; `make checker` fetches it");
        return;
    }
    let program = "import glob, onnx, sys\n\
        files = glob.glob(sys.argv[1] + '/*/*.onnx')\n\
        assert len(files) > 15, files\n\
        for file in files:\n    onnx.checker.check_model(file, full_check=True)\n    \
        model = onnx.load(file)\n    assert model.opset_import[0].version >= 17 and \
        len(model.metadata_props) > 3\n    \
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == 'batch'\n";
    let python = Command::new("python3")
        .args(["-c", program])
        .arg(folder)
        .env("PYTHONPATH", checker)
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", errors(&python));
}

/// A training of short epochs.
fn training_file(epochs: u32) -> String {
    format!(
        "kind = ['denoising', 'deep']\ncode_size = 3\n[network]\nnodes = [16]\n[corruption]\n\
         noise = 'gaussian'\nsigma = 0.3\n\
         [training]\nepochs = {epochs}\nbatch_size = 16\nema_decay = 0.9\noptimizer = 'muon'\n\
         clip_grad_norm = 1.0\n[input]\ntype = 'features'\n{FEATURES}"
    )
}

fn files(folder: &Path, name: &str) -> Vec<Vec<u8>> {
    let read = |file| std::fs::read(folder.join(name).join(file)).unwrap();
    ["encoder.onnx", "decoder.onnx"].map(read).to_vec()
}

#[test]
fn killed_training_resumes_to_the_same_weights() {
    let (undisturbed, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = training_file(60);
    let output = train(undisturbed.path(), "m", &text, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let mut kills = 0;
    for _ in 0..50 {
        let mut child = train(killed.path(), "m", &text, &[])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        // The kill hits an epoch some epochs later.
        if lines
            .by_ref()
            .filter(|line| line.contains("finished an epoch"))
            .nth(7)
            .is_some()
        {
            child.kill().unwrap();
            kills += 1;
        }
        if child.wait().unwrap().success() {
            break;
        }
    }
    assert!(kills > 2, "{kills} kills");
    assert_eq!(files(undisturbed.path(), "m"), files(killed.path(), "m"));
}

#[test]
fn killed_training_resumes_with_an_equivalent_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = training_file(60);
    let mut child = train(folder.path(), "m", &text, &[])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(
        lines
            .by_ref()
            .filter(|line| line.contains("finished an epoch"))
            .nth(3)
            .is_some()
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let equivalent = text
        .replace("ema_decay = 0.9", "ema_decay = 0.90\nschedule = 'cosine'")
        .replace("validation = 0.2", "validation = 0.20\ntest = 0");
    let output = train(folder.path(), "m", &equivalent, &[])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(
        errors(&output).contains("resuming the training"),
        "{}",
        errors(&output)
    );
}

#[test]
fn stopped_training_exports_the_best_weights() {
    let folder = tempfile::tempdir().unwrap();
    let text = training_file(100_000);
    let mut child = train(folder.path(), "m", &text, &["--metrics", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let served = lines
        .by_ref()
        .find(|line| line.contains("metrics at"))
        .unwrap();
    let address = served
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        lines
            .by_ref()
            .filter(|line| line.contains("finished an epoch"))
            .nth(3)
            .is_some()
    );
    let metrics = scrape(&address);
    for name in [
        "training_loss",
        "training_learning_rate",
        "training_epochs",
        "training_records_per_second",
    ] {
        assert!(
            metrics.contains(&format!("latentflow_{name}{{model=\"m\"")),
            "{name}:\n{metrics}"
        );
    }
    terminate(&child);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{rest:?}");
    let before = files(folder.path(), "m");
    // A training file with other options than the number of epochs requires --restart.
    let other = training_file(100_000).replace("code_size = 3", "code_size = 4");
    let refused = train(folder.path(), "m", &other, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("has changed since this training began; pass --restart"),
        "{}",
        errors(&refused)
    );
    assert_eq!(files(folder.path(), "m"), before);
    let output = train(folder.path(), "m", &training_file(2), &["--restart"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let repeated = train(folder.path(), "m", &training_file(2), &[])
        .output()
        .unwrap();
    assert!(
        errors(&repeated).contains("the folder already contains a model; pass --restart"),
        "{}",
        errors(&repeated)
    );
}

#[test]
fn stop_in_the_first_epoch_writes_no_model() {
    let folder = tempfile::tempdir().unwrap();
    // An epoch takes minutes, so the signal arrives in the first one.
    let text = training_file(1)
        .replace("records = 400", "records = 100_000")
        .replace("nodes = [16]", "nodes = [256]");
    let mut child = train(folder.path(), "m", &text, &[])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(
        lines
            .by_ref()
            .any(|line| line.contains("starting the training"))
    );
    terminate(&child);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{rest:?}");
    let rest = rest.join("\n");
    assert!(
        rest.contains("no epoch has finished, so no model is written"),
        "{rest}"
    );
    assert!(!folder.path().join("m/model.toml").exists());
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn terminate(child: &Child) {
    let status = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn errors_of_a_training_file_are_reported_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let text = "kind = 'deep'\ncode_size = 0\n[network]\nnodes = 3\n\
                [training]\nepocs = 3\nlearning_rate = 'high'\n[sparsity]\npenalty = 'l2'\n";
    let output = train(folder.path(), "m", text, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let messages = errors(&output);
    for expected in [
        "m.toml:5: network.nodes",
        "m.toml:7: training.epocs",
        "m.toml:8: training.learning_rate",
        "m.toml:10: sparsity.penalty",
    ] {
        assert!(messages.contains(expected), "{expected}:\n{messages}");
    }
    let missing =
        format!("kind = 'vanilla'\ncode_size = 2\n[input]\ntype = 'features'\n{FEATURES}")
            .replace("'synthetic'", "'synthetik'");
    let missing_output = train(folder.path(), "m", &missing, &[]).output().unwrap();
    assert_eq!(
        missing_output.status.code(),
        Some(2),
        "{}",
        errors(&missing_output)
    );
    assert!(
        errors(&missing_output).contains("did you mean `synthetic`?"),
        "{}",
        errors(&missing_output)
    );
    assert!(
        !folder.path().join("m").exists(),
        "a refused training writes no folder"
    );
}

#[test]
fn loss_that_is_not_finite_ends_a_training_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let text = training_file(50).replace(
        "optimizer = 'muon'\nclip_grad_norm = 1.0",
        "optimizer = 'sgd'\nlearning_rate = 1e30",
    );
    let output = train(folder.path(), "m", &text, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("lower training.learning_rate"),
        "{}",
        errors(&output)
    );
}

#[test]
fn template_trains_and_schema_covers_shipped_files() {
    let folder = tempfile::tempdir().unwrap();
    let stdout = |arguments: &[&str]| {
        let output = latentflow(folder.path(), arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            errors(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let window = |n: usize| {
        (0..24)
            .map(|k| ((n * k) as f64 / 7.0).sin().to_string())
            .collect::<Vec<_>>()
    };
    let windows = (1..80).map(|n| format!("{{\"window\": [{}]}}\n", window(n).join(", ")));
    std::fs::write(
        folder.path().join("windows.ndjson"),
        windows.collect::<String>(),
    )
    .unwrap();
    let sources = [
        (
            "images",
            "{ kind = 'synthetic', content = 'images', records = 30 }",
        ),
        (
            "features",
            "{ kind = 'synthetic', content = 'features', records = 60, width = 8 }",
        ),
        ("windows", "{ kind = 'ndjson', path = 'windows.ndjson' }"),
    ];
    assert_eq!(
        stdout(&["init", "training"]),
        stdout(&["init", "training", "images"])
    );
    let mut templates = Vec::new();
    for (data, source) in sources {
        let template = stdout(&["init", "training", data]);
        let file = format!("{data}.toml");
        std::fs::write(folder.path().join(&file), &template).unwrap();
        let source = format!("data.sources=[{source}]");
        let small = [
            "--set",
            "training.epochs=1",
            "--set",
            "training.crops=1",
            "--set",
            &source,
        ];
        let small = if data == "images" {
            &small[..]
        } else {
            &[&small[..2], &small[4..]].concat()
        };
        stdout(&[&["train", file.as_str()], small].concat());
        stdout(&["evaluate", data, "--set", "test=0.2"]);
        templates.push(template);
    }
    let wrong = latentflow(folder.path(), &["init", "features", "windows"])
        .output()
        .unwrap();
    assert!(!wrong.status.success() && wrong.stdout.is_empty());

    let schema: serde_json::Value = serde_json::from_str(&stdout(&["schema", "training"])).unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let files = models
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    let texts = files
        .map(|path| std::fs::read_to_string(path).unwrap())
        .chain(templates);
    for text in texts {
        assert_in_schema(&schema, &toml::from_str(&text).unwrap(), "");
    }
}

/// Asserts that a schema has every key of `table`.
fn assert_in_schema(schema: &serde_json::Value, table: &toml::Table, place: &str) {
    for (key, value) in table {
        let place = format!("{place}.{key}");
        let property = &schema["properties"][key];
        assert!(property.is_object(), "{place} is not in the schema");
        // The options of sources are not checked here, since the schema of pipelines covers them.
        if let Some(inner) = value
            .as_table()
            .filter(|_| property["properties"].is_object())
        {
            assert_in_schema(property, inner, &place);
        }
    }
}

/// Columns whose values lose their digits in float32: Unix milliseconds, a large mean with a small
/// deviation, a tiny and a huge scale, whole numbers above 2^53.
fn hostile_rows(rows: usize) -> String {
    let row = |n: usize| {
        let (x, y) = ((n as f64 * 0.7).sin(), (n as f64 * 1.3).cos());
        format!(
            "{},{},{:e},{:e},{}\n",
            1_760_000_000_000_u64 + (n as u64 * 7919) % 60_000,
            1e12 + 2.0 * x,
            1e-200 * (x + y),
            1e200 * (x - y),
            9_007_199_254_740_993_u64 + 2 * ((n as u64 * 31) % 1000),
        )
    };
    let lines: String = (0..rows).map(row).collect();
    format!("time_ms,large,tiny,huge,whole\n{lines}")
}

/// Evaluates a model on a part of the data of its training.
fn evaluation(folder: &Path, model: &str, part: &str) -> serde_json::Value {
    let arguments = ["evaluate", model, "--part", part, "--json", "-"];
    let output = latentflow(folder, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn mean(evaluation: &serde_json::Value) -> f64 {
    evaluation["reconstruction"]["error"]["mean"]
        .as_f64()
        .unwrap()
}

/// The mean of the column `reconstruction_error` that a pipeline prints.
fn mean_error_of_run(folder: &Path, pipeline: &str) -> f64 {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    let ran = latentflow(folder, &["run", "p.toml"]).output().unwrap();
    assert!(ran.status.success(), "{}", errors(&ran));
    let lines = String::from_utf8(ran.stdout).unwrap();
    let error = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["reconstruction_error"].as_f64().unwrap()
    };
    let found: Vec<f64> = lines.lines().map(error).collect();
    found.iter().sum::<f64>() / found.len() as f64
}

fn near(found: f64, expected: f64) -> bool {
    (found / expected - 1.0).abs() < 1e-5
}

#[test]
fn models_run_on_jpegs_as_they_were_trained() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for number in 0..12_u32 {
        let image = image::RgbImage::from_fn(97, 71, |x, y| {
            let mixed = (x * 97 + y + number).wrapping_mul(2_654_435_761);
            image::Rgb([(mixed >> 24) as u8 / 2, (x * 2) as u8, (y * 3) as u8])
        });
        image.save(photos.join(format!("{number}.jpg"))).unwrap();
    }
    for (mode, other, option) in [
        ("scaled", "full", ""),
        ("full", "scaled", "decode = 'full'"),
    ] {
        let text = format!(
            "kind = 'convolutional'\ncode_size = 4\n[input]\ntype = 'image'\nsize = [16, 16]\n\
             {option}\n[network]\nchannels = [4, 4]\n[training]\nepochs = 2\n\
             [data]\nvalidation = 0.5\n[[data.sources]]\nkind = 'images'\npath = 'photos'\n"
        );
        let output = train(folder.path(), mode, &text, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let card = std::fs::read_to_string(folder.path().join(mode).join("model.toml")).unwrap();
        let card: toml::Table = card.parse().unwrap();
        assert_eq!(card["input"]["decode"].as_str(), Some(mode));
        let pipeline = |pixels: &str| {
            format!(
                "[models.m]\npath = '{mode}'\n[stages.in]\nkind = 'images'\npath = 'photos'\n\
                 [stages.px]\nkind = 'pixels'\ninputs = ['in']\nmodel = 'm'\n{pixels}\n\
                 [stages.e]\nkind = 'encode'\ninputs = ['px']\nmodel = 'm'\n\
                 reconstruct = true\n[stages.out]\nkind = 'stdout'\ninputs = ['e']\n\
                 columns = ['reconstruction_error']\n"
            )
        };
        let all = evaluation(folder.path(), mode, "all");
        let found = mean_error_of_run(folder.path(), &pipeline(""));
        assert!(near(found, mean(&all)), "{mode}: {found}, {all}");
        let stored = card["reconstruction_error"]["mean"].as_float().unwrap();
        let validation = evaluation(folder.path(), mode, "validation");
        assert!(near(mean(&validation), stored), "{mode}: {stored}");
        let in_other_mode = pipeline(&format!("decode = '{other}'"));
        let changed = mean_error_of_run(folder.path(), &in_other_mode);
        assert!(!near(changed, found), "{mode}: {changed}, {found}");
    }
}

#[test]
fn training_evaluation_and_run_see_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.csv"), hostile_rows(600)).unwrap();
    let source = "kind = 'csv'\npath = 'rows.csv'\n";
    for scaling in ["standard", "min_max"] {
        let text = format!(
            "kind = 'deep'\ncode_size = 2\n[input]\ntype = 'features'\nscaling = '{scaling}'\n\
             [network]\nnodes = [16]\n[training]\nepochs = 20\nlearning_rate = 0.01\n\
             [data]\nvalidation = 0.5\n[[data.sources]]\n{source}"
        );
        let output = train(folder.path(), scaling, &text, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let evaluated = |part: &str| evaluation(folder.path(), scaling, part);
        let pipeline = format!(
            "[models.m]\npath = '{scaling}'\n[stages.rows]\n{source}[stages.f]\n\
             kind = 'features'\ninputs = ['rows']\nmodel = 'm'\n[stages.e]\nkind = 'encode'\n\
             inputs = ['f']\nmodel = 'm'\nreconstruct = true\n[stages.out]\n\
             kind = 'stdout'\ninputs = ['e']\ncolumns = ['reconstruction_error']\n"
        );
        let run_mean = mean_error_of_run(folder.path(), &pipeline);
        let all = evaluated("all");
        assert!(near(run_mean, mean(&all)), "{run_mean}, {all}");
        // The card has the error of the training's own validation.
        let card = std::fs::read_to_string(folder.path().join(scaling).join("model.toml")).unwrap();
        let card: toml::Table = card.parse().unwrap();
        let stored = card["reconstruction_error"]["mean"].as_float().unwrap();
        assert!(near(mean(&evaluated("validation")), stored), "{stored}");
        assert!(
            !all["notes"].to_string().contains("differ from those"),
            "{all}"
        );
    }
}

#[test]
fn evaluation_reports_data_that_has_changed_since_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let rows = hostile_rows(60);
    std::fs::write(folder.path().join("rows.csv"), &rows).unwrap();
    let text = "kind = 'vanilla'\ncode_size = 1\n[training]\nepochs = 1\n\
                [data]\nvalidation = 0.5\n[[data.sources]]\nkind = 'csv'\npath = 'rows.csv'\n";
    let output = train(folder.path(), "m", text, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    // The change is below the precision of float32.
    std::fs::write(
        folder.path().join("rows.csv"),
        rows.replacen("000000,", "000001,", 1),
    )
    .unwrap();
    let evaluate = |more: &[&str]| {
        let arguments = [&["evaluate", "m"], more].concat();
        let evaluated = latentflow(folder.path(), &arguments).output().unwrap();
        assert!(evaluated.status.success(), "{}", errors(&evaluated));
        String::from_utf8(evaluated.stdout).unwrap()
    };
    let note = "the records differ from those of the training";
    assert!(evaluate(&[]).contains(note));
    assert!(!evaluate(&["--source", "rows.csv", "--part", "all"]).contains(note));
    std::fs::write(folder.path().join("rows.csv"), &rows).unwrap();
    assert!(!evaluate(&[]).contains(note));
}
