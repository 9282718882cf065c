//! Tests of models in a bucket.

use std::path::{Path, PathBuf};

use arrow::array::AsArray as _;
use arrow::datatypes::Float32Type;
use sha2::{Digest as _, Sha256};

use super::stand_in::{Cloud, StandIn};
use super::{Store, assert_done, column, records, run};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn put(store: &StandIn, key: &str, path: &str) {
    store.put(key, &std::fs::read(repository(path)).unwrap());
}

/// A pipeline that encodes four columns. `model` has the options of the model.
fn pipeline(store: &StandIn, model: &str) -> String {
    format!(
        "[models.m]\n{model}\n\
         [stages.in]\nkind = \"csv\"\npath = \"{}\"\n\
         [stages.ready]\nkind = \"features\"\ninputs = [\"in\"]\ncolumns = [\"a\", \"b\", \"c\", \"d\"]\n\
         scaling = \"none\"\n\
         [stages.codes]\nkind = \"encode\"\ninputs = [\"ready\"]\nmodel = \"m\"\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"codes\"]\npath = \"{}\"\n",
        store.url("in"),
        store.url("out")
    )
}

#[test]
fn model_in_a_bucket_is_read_with_its_external_data() {
    for cloud in Cloud::ALL {
        let store = StandIn::start(cloud);
        store.put("in/t.csv", b"a,b,c,d\n1,2,3,4\n0,1,0,2\n");
        put(&store, "models/external.onnx", "tests/models/external.onnx");
        let model = format!("encoder = \"{}\"", store.url("models/external.onnx"));
        let folder = tempfile::tempdir().unwrap();
        let (refused, _) = run(folder.path(), &store, &pipeline(&store, &model), &[]);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains("/models/external.bin"), "{message}");
        assert!(!message.contains("latentflow-model-"), "{message}");

        put(&store, "models/external.bin", "tests/models/external.bin");
        let (output, _) = run(folder.path(), &store, &pipeline(&store, &model), &[]);
        assert_done(&output);
        let latents = column(&records(&store, "out/").unwrap(), "latent");
        let latents = latents.as_fixed_size_list().values();
        let latents = latents.as_primitive::<Float32Type>().values().to_vec();
        assert_eq!(latents, [3., 7., 1., 2.], "{cloud:?}");

        let gone = format!("encoder = \"{}\"", store.url("models/gone.onnx"));
        let (missing, _) = run(folder.path(), &store, &pipeline(&store, &gone), &[]);
        let reason = String::from_utf8_lossy(&missing.stderr).into_owned();
        assert_eq!(missing.status.code(), Some(2), "{reason}");
        assert!(
            reason.contains("models/gone.onnx does not exist"),
            "{reason}"
        );
    }
}

#[test]
fn card_in_a_bucket_may_list_external_data() {
    let store = StandIn::start(Cloud::ALL[0]);
    let folder = tempfile::tempdir().unwrap();
    let mut card = "name = \"m\"\nkind = \"deep\"\n[input]\n[files]\n".to_owned();
    for (name, file) in [
        ("encoder.onnx", "external.onnx"),
        ("external.bin", "external.bin"),
    ] {
        let path = format!("tests/models/{file}");
        put(&store, &format!("models/m/{name}"), &path);
        let digest = Sha256::digest(std::fs::read(repository(&path)).unwrap());
        card += &format!("\"{name}\" = \"sha256:{digest:x}\"\n");
    }
    store.put("models/m/model.toml", card.as_bytes());
    store.put("in/t.csv", b"a,b,c,d\n1,2,3,4\n");
    let model = format!("path = \"{}\"", store.url("models/m"));
    let (output, _) = run(folder.path(), &store, &pipeline(&store, &model), &[]);
    assert_done(&output);
    let latents = column(&records(&store, "out/").unwrap(), "latent");
    let values = latents.as_fixed_size_list().values();
    let values = values.as_primitive::<Float32Type>().values().to_vec();
    assert_eq!(values, [3., 7.]);
}

#[test]
fn files_in_a_bucket_are_compared_with_the_card() {
    let store = StandIn::start(Cloud::ALL[0]);
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.toml", "encoder.onnx", "decoder.onnx"] {
        let path = format!("models/kdd-ae/{file}");
        put(&store, &format!("models/m/{file}"), &path);
    }
    store.put("in/t.csv", b"a,b,c,d\n1,2,3,4\n");
    let model = format!("path = \"{}\"", store.url("models/m"));
    put(&store, "models/m/decoder.onnx", "tests/models/decoder.onnx");
    let (output, _) = run(folder.path(), &store, &pipeline(&store, &model), &[]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("/models/m/decoder.onnx: the digest of the file is"),
        "{message}"
    );
}
