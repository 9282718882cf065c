//! Unit tests of the module `config_file`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn mistaken(file: ConfigFile, root: &Value) -> Option<String> {
    file.mistaken(Path::new("models/x.toml"), root)
}

#[test]
fn file_of_another_command_is_answered_with_the_command() {
    let training = json!({ "name": "x", "network": { "nodes": [8] }, "data": {} });
    assert_eq!(
        mistaken(ConfigFile::Pipeline, &training).unwrap(),
        "is a training file, because it has [network], [data] and no stages; use \
             `latentflow train models/x.toml`"
    );
    let pipeline = json!({ "stages": { "in": { "kind": "csv" } } });
    assert_eq!(
        mistaken(ConfigFile::Training, &pipeline).unwrap(),
        "is a pipeline file, because it has stages and no network; use `latentflow run \
             models/x.toml`"
    );
    let card = json!({ "input": {}, "files": {}, "training": {}, "metrics": {} });
    for file in [ConfigFile::Pipeline, ConfigFile::Training] {
        let message = mistaken(file, &card).unwrap();
        assert!(
            message.starts_with(
                "is the card of a model; `latentflow inspect models` describes the model"
            ),
            "{message}"
        );
    }
    assert_eq!(mistaken(ConfigFile::Training, &training), None);
    assert_eq!(mistaken(ConfigFile::Pipeline, &pipeline), None);
    assert_eq!(
        mistaken(ConfigFile::Pipeline, &json!({ "name": "x" })),
        None
    );
    let typo = json!({ "stagess": {}, "training": {} });
    assert_eq!(mistaken(ConfigFile::Pipeline, &typo), None);
}

#[test]
fn files_that_are_not_toml_are_named_by_their_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("model")).unwrap();
    fs::create_dir_all(at("out/_latentflow")).unwrap();
    fs::create_dir_all(at("photos")).unwrap();
    for (name, content) in [
        ("model/model.toml", b"name = \"model\"\n".as_slice()),
        ("model.toml", b"name = \"model\"\n"),
        ("a.parquet", b"PAR1\xff\xff"),
        ("a.jpg", b"\xff\xd8\xff\xe0"),
        ("a.onnx", b"\x08\x07\x12\xff"),
        ("a.dat", b"\xff\0"),
        ("notepad.toml", b"\xff\xfea\0"),
        ("latin.toml", b"name = \"\xe4\"\n"),
        ("a.json", b"{\"a\": 1}"),
        ("a.txt", b"\n { \"a\": 1 }"),
        ("a.yaml", b"a: 1"),
    ] {
        fs::write(at(name), content).unwrap();
    }
    for (name, expected) in [
        ("photos", "is a folder; "),
        ("model", "is a model folder; `latentflow inspect "),
        ("out", "is the output of a run, which `latentflow inspect "),
        ("a.parquet", "is a Parquet file; "),
        ("a.jpg", "is a JPEG image; "),
        (
            "a.onnx",
            "is an ONNX file, which `latentflow inspect` describes; ",
        ),
        ("a.dat", "is not a text file; "),
        (
            "notepad.toml",
            "is text in UTF-16, which has to be saved as UTF-8; ",
        ),
        ("latin.toml", "is not text in UTF-8; "),
        ("a.json", "is JSON; "),
        ("a.txt", "is JSON; "),
        ("a.yaml", "is YAML; "),
        ("modell", "does not exist (did you mean `model.toml`?)"),
        ("elsewhere/a", "does not exist"),
    ] {
        let message = ConfigFile::Pipeline.read(&at(name)).unwrap_err();
        assert!(message.starts_with(expected), "{name}: {message}");
    }
    let trained = ConfigFile::Training.read(&at("model")).unwrap_err();
    assert!(
        trained.contains("; its training file is `") && trained.contains("`latentflow train "),
        "{trained}"
    );
    assert_eq!(
        ConfigFile::Pipeline.read(&at("model.toml")).unwrap(),
        "name = \"model\"\n"
    );
}
