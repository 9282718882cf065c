//! Tests of whole trainings on small tables: stops, data that leaves nothing to train on, and
//! losses that do not apply to the values.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::work_folder::WorkFolder;
use super::*;
use crate::model::card::{CARD, ModelCard};
use crate::model::{Loss, testing};

/// Writes 60 rows with the columns `a` and `b` in 0..1, `c` in -1..1, and `y`: "odd" for every
/// tenth row, no value for every sixth of the others.
fn write_rows(folder: &Path) {
    let row = |n: usize| {
        let (a, b) = ((n * 7 % 60) as f64 / 59.0, (n * 11 % 60) as f64 / 59.0);
        let y = match n {
            _ if n % 10 == 9 => "odd",
            _ if n % 6 == 1 => "",
            _ => "usual",
        };
        format!("{a},{b},{},{y}\n", 2.0 * a - 1.0)
    };
    let rows: String = (0..60).map(row).collect();
    fs::write(folder.join("rows.csv"), format!("a,b,c,y\n{rows}")).unwrap();
}

/// Returns a training file: options at its top and of its tables, without the sources.
fn file(folder: &Path, text: &str) -> TrainingFile {
    write_rows(folder);
    let text = format!("name = 'm'\nkind = 'deep'\ncode_size = 1\n{text}");
    let mut written: toml::Table = toml::from_str(&text).unwrap();
    let source: toml::Table = toml::from_str("kind = 'csv'\npath = 'rows.csv'").unwrap();
    let data = written
        .entry("data")
        .or_insert_with(|| toml::Table::new().into());
    let data = data.as_table_mut().unwrap();
    data.insert("root".to_owned(), folder.display().to_string().into());
    data.insert("sources".to_owned(), vec![source].into());
    TrainingFile::read(serde_json::to_value(written).unwrap()).unwrap()
}

fn options(epochs: u32) -> String {
    format!(
        "[network]\nnodes = [4]\n[training]\nepochs = {epochs}\nbatch_size = 8\n\
         [input]\ncolumns = ['a', 'b', 'c']\n"
    )
}

/// Trains, and stops when `stops` returns true for an event.
fn train_until(
    file: &TrainingFile,
    out: &Path,
    restart: bool,
    stops: impl Fn(&TrainEvent<'_>) -> bool,
) -> Result<TrainResult, TrainError> {
    testing::init();
    let stop = Arc::new(AtomicBool::new(false));
    let options = TrainOptions {
        restart,
        stop: Arc::clone(&stop),
    };
    train(file, out, &options, &mut |event| {
        if stops(&event) {
            stop.store(true, Ordering::Relaxed);
        }
    })
}

fn train_all(file: &TrainingFile, out: &Path, restart: bool) -> Result<TrainResult, TrainError> {
    train_until(file, out, restart, |_| false)
}

/// Returns the names and contents of the files in a model folder.
fn contents(model: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(model)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Returns the faults of a training that is refused and leaves no folder.
fn refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m");
    let error = train_all(&file(folder.path(), text), &out, false).unwrap_err();
    assert!(matches!(error, TrainError::Faults(_)), "{error}");
    assert!(!out.exists(), "a refused training leaves no folder");
    error.to_string()
}

#[test]
fn stop_while_data_is_read_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().join("m"), file(folder.path(), &options(2)));
    let options = TrainOptions {
        restart: false,
        stop: Arc::new(AtomicBool::new(true)),
    };
    let stopped = train(&file, &out, &options, &mut |_| {}).unwrap();
    assert_eq!(
        (stopped.finished, stopped.has_checkpoint, stopped.best_epoch),
        (false, false, None)
    );
    assert!(!out.exists());
}

#[test]
fn stop_in_the_first_epoch_keeps_the_model_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let [out, undisturbed] = ["m", "undisturbed"].map(|name| folder.path().join(name));
    train_all(&file(folder.path(), &options(1)), &out, false).unwrap();
    let earlier = contents(&out);
    assert_eq!(earlier.len(), 4, "encoder, decoder, card, curve");
    let other = file(folder.path(), &format!("seed = 5\n{}", options(2)));
    let is_start = |event: &TrainEvent<'_>| matches!(event, TrainEvent::Started(_));
    let stopped = train_until(&other, &out, true, is_start).unwrap();
    assert_eq!(
        (stopped.finished, stopped.has_checkpoint, stopped.best_epoch),
        (false, true, None)
    );
    assert_eq!(contents(&out), earlier);
    let resumed = train_all(&other, &out, false).unwrap();
    assert!(resumed.finished && !WorkFolder::path_in(&out).exists());
    train_all(&other, &undisturbed, false).unwrap();
    let encoder = |model: &Path| fs::read(model.join("encoder.onnx")).unwrap();
    assert_eq!(encoder(&out), encoder(&undisturbed));
}

/// Returns trainings of each kind with random values inside of the network, or with a state in
/// addition to learned weights: options at the top, and those of the network.
fn kinds_with_state() -> [(&'static str, &'static str); 4] {
    [
        (
            "kind = ['variational', 'deep']\nbeta = 0.1\nbeta_warmup = 2\n",
            "nodes = [4]\nnormalization = 'batch'\n",
        ),
        (
            "kind = ['contractive', 'deep']\ncontraction = 0.5\n",
            "nodes = [4]\nactivation = 'tanh'\n",
        ),
        ("", "nodes = [4]\ntied = true\nactivation = 'tanh'\n"),
        ("", "nodes = [4, 4]\nnormalization = 'layer'\n"),
    ]
}

/// Returns a training file of a kind with a moving average of the weights.
fn file_of_kind(folder: &Path, (top, network): (&str, &str), epochs: u32) -> TrainingFile {
    let text = options(epochs).replace("nodes = [4]\n", network).replace(
        "batch_size = 8",
        "batch_size = 8\nema_decay = 0.9\nclip_grad_norm = 1.0",
    );
    let mut read = file(folder, &format!("seed = 4\n{text}"));
    if !top.is_empty() {
        let Value::Object(mut written) = read.written.clone() else {
            panic!("a training file is a table")
        };
        let top: toml::Table = toml::from_str(top).unwrap();
        written.extend(top.into_iter().map(|(key, value)| (key, json!(value))));
        read = TrainingFile::read(Value::Object(written)).unwrap();
    }
    read
}

#[test]
fn interrupted_training_of_each_kind_reaches_the_same_bits() {
    for kind in kinds_with_state() {
        let folder = tempfile::tempdir().unwrap();
        let [out, undisturbed] = ["m", "undisturbed"].map(|name| folder.path().join(name));
        let file = file_of_kind(folder.path(), kind, 4);
        let expected = train_all(&file, &undisturbed, false).unwrap();
        // The first stop is within the first epoch, the second after the second epoch.
        let starts = |event: &TrainEvent<'_>| matches!(event, TrainEvent::Started(_));
        let is_second = |event: &TrainEvent<'_>| matches!(event, TrainEvent::Epoch(point, _) if point.epoch == 2);
        assert!(!train_until(&file, &out, false, starts).unwrap().finished);
        assert!(!train_until(&file, &out, false, is_second).unwrap().finished);
        let resumed = train_all(&file, &out, false).unwrap();
        // The last digits of the numbers of a checkpoint may differ.
        let without_time = |curve: &[EpochRecord]| -> Vec<String> {
            let point = |point: &EpochRecord| EpochRecord {
                seconds: 0.0,
                ..*point
            };
            curve
                .iter()
                .map(|epoch| format!("{:.9?}", point(epoch)))
                .collect()
        };
        assert_eq!(without_time(&resumed.curve), without_time(&expected.curve));
        for part in ["encoder.onnx", "decoder.onnx"] {
            let [found, whole] =
                [&out, &undisturbed].map(|model| fs::read(model.join(part)).unwrap());
            assert!(found == whole, "{kind:?}: {part}");
        }
    }
}

#[test]
fn variational_training_reports_its_terms() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m");
    let [variational, contractive, ..] = kinds_with_state();
    let file = file_of_kind(folder.path(), variational, 12);
    let trained = train_all(&file, &out, false).unwrap();
    for point in &trained.curve {
        let (loss, reconstruction) = (
            point.validation_loss.unwrap(),
            point.validation_reconstruction,
        );
        // Records of three values.
        let sum = reconstruction.unwrap() + 0.1 * point.validation_kl.unwrap() / 3.0;
        assert!((loss - sum).abs() < 1e-5 * sum, "{point:?}");
        // The weight rises in the first two epochs.
        let full = point.reconstruction.unwrap() + 0.1 * point.kl.unwrap() / 3.0;
        assert!(
            (point.loss - full).abs() < 1e-5 * full || point.epoch <= 2,
            "{point:?}"
        );
        assert!(point.loss < full || point.epoch > 2, "{point:?}");
    }
    let best = &trained.curve[trained.best_epoch.unwrap() as usize - 1];
    let kl = best.validation_kl.unwrap();
    assert!(kl > 0.01 && (card(&out).metrics["kl"] - kl).abs() < 1e-5 * kl);
    // The shipped files reconstruct as the trainer does: from means, with running averages.
    let mse = card(&out).metrics["mse"];
    let reconstruction = best.validation_reconstruction.unwrap();
    assert!(
        (mse - reconstruction).abs() < 1e-4 * mse,
        "{mse} is not {reconstruction}"
    );
    let written = fs::read(out.join("training.parquet")).unwrap();
    assert!(written.windows(13).any(|part| part == b"validation_kl"));
    let other = file_of_kind(folder.path(), contractive, 2);
    let penalized = train_all(&other, &folder.path().join("c"), false).unwrap();
    for point in &penalized.curve {
        let sum = point.reconstruction.unwrap() + 0.5 * point.contraction.unwrap() / 3.0;
        assert!((point.loss - sum).abs() < 1e-5 * sum, "{point:?}");
        assert!(point.kl.is_none() && point.validation_kl.is_none());
    }
}

#[test]
fn stop_in_a_later_epoch_writes_the_best_model() {
    let folder = tempfile::tempdir().unwrap();
    let (out, short) = (folder.path().join("m"), file(folder.path(), &options(4)));
    let is_second =
        |event: &TrainEvent<'_>| matches!(event, TrainEvent::Epoch(point, _) if point.epoch == 2);
    let stopped = train_until(&short, &out, false, is_second).unwrap();
    assert!(!stopped.finished && stopped.best_epoch.is_some());
    assert!(out.join(CARD).exists());
    // The stopped training continues with more epochs, but not with fewer than it has completed.
    let fewer = train_all(&file(folder.path(), &options(1)), &out, false).unwrap_err();
    assert_eq!(
        fewer.to_string(),
        "training.epochs: the training has completed 2 epochs already; met 1; set 2 or more, or \
         pass --restart to start from scratch"
    );
    let longer = train_all(&file(folder.path(), &options(6)), &out, false).unwrap();
    let epochs: Vec<u32> = longer.curve.iter().map(|point| point.epoch).collect();
    assert_eq!((longer.finished, epochs), (true, vec![1, 2, 3, 4, 5, 6]));
}

#[test]
fn other_options_of_a_stopped_training_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (out, first) = (folder.path().join("m"), file(folder.path(), &options(4)));
    let is_epoch = |event: &TrainEvent<'_>| matches!(event, TrainEvent::Epoch(..));
    train_until(&first, &out, false, is_epoch).unwrap();
    let changed = options(6).replace("[4]", "[5]");
    let error = train_all(&file(folder.path(), &changed), &out, false).unwrap_err();
    assert!(matches!(error, TrainError::Changed(_)), "{error}");
}

#[test]
fn normal_that_holds_for_no_record_is_refused_with_values() {
    let normal = |equals: &str| {
        let text = options(1);
        refused(&format!(
            "{text}[data]\nnormal = {{ column = 'y', equals = '{equals}' }}\n"
        ))
    };
    assert_eq!(
        normal("usaul"),
        "data.normal: no record is normal, thus none is left to train on: 52 records are anomalies \
         and 8 have no value in `y`; the column `y` holds \"odd\" (6), \"usual\" (46), no value \
         (8); correct the comparison"
    );
}

#[test]
fn shares_that_leave_no_training_record_are_refused() {
    let share = |table: &str| refused(&format!("{}[data]\n{table}", options(1)));
    assert_eq!(
        share("validation = 1.0"),
        "data.validation: no record is left to train on: the shares of validation (1) and test (0) \
         add up to 1; expected a sum below 1"
    );
    assert_eq!(
        share("validation = 0.3\ntest = 0.7"),
        "data.test: no record is left to train on: the shares of validation (0.3) and test (0.7) \
         add up to 1; expected a sum below 1"
    );
    // All of the few records fall into the validation part.
    assert_eq!(
        share("validation = 0.999999"),
        "data.validation: no record is left to train on: the validation part has 60 records, the \
         test part 0 (0 of them anomalies); lower `validation` and `test`, or add records"
    );
}

#[test]
fn keep_that_leaves_out_all_records_is_refused_with_values() {
    let text = options(1);
    assert_eq!(
        refused(&format!(
            "{text}[data]\nkeep = [{{ column = 'a', above = -1 }}, \
             {{ column = 'y', equals = 'x' }}]"
        )),
        "data.keep[1]: leaves out all 60 records: the column `y` holds \"odd\" (6), \"usual\" \
         (46), no value (8); correct the comparison"
    );
}

#[test]
fn patience_of_0_is_refused() {
    let text = options(1).replace("epochs = 1", "epochs = 1\npatience = 0");
    assert_eq!(
        refused(&text),
        "training.patience: must be 1 epoch or more; met 0; remove it to train for all epochs"
    );
}

#[test]
fn bce_of_values_outside_of_its_range_is_refused() {
    let bce = |scaling: &str| format!("loss = 'bce'\n{}{scaling}", options(1));
    let standard = "loss: `bce` is for values in 0..1, but features with `input.scaling = \
                    \"standard\"` have a mean of 0; set input.scaling = \"min_max\", or loss = \
                    \"mse\"";
    assert_eq!(refused(&bce("")), standard);
    assert_eq!(refused(&bce("scaling = 'standard'\n")), standard);
    assert_eq!(
        refused(&bce("scaling = 'none'\n[data]\nvalidation = 0\n")),
        "loss: `bce` is for values in 0..1, but column `c` lies in -1..1 in the training part; set \
         input.scaling = \"min_max\", or loss = \"mse\""
    );
    let folder = tempfile::tempdir().unwrap();
    for scaling in ["'min_max'", "'none'"] {
        let inside = bce(&format!("scaling = {scaling}\n")).replace(", 'c'", "");
        let out = folder.path().join(scaling);
        let trained = train_all(&file(folder.path(), &inside), &out, false).unwrap();
        assert!(trained.finished, "{scaling}");
    }
}

#[test]
fn validation_values_that_bce_clamps_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    // A large validation part holds the extremes of a column.
    let text = options(1).replace(
        "columns = ['a', 'b', 'c']",
        "columns = ['a', 'b', 'c']\nscaling = 'min_max'\n[data]\nvalidation = 0.8",
    );
    let file = file(folder.path(), &format!("loss = 'bce'\n{text}"));
    let reported = AtomicBool::new(false);
    train_until(&file, &folder.path().join("m"), false, |event| {
        if let TrainEvent::OutOfRange(found) = event {
            assert_eq!(found.part, Subset::Validation);
            reported.store(true, Ordering::Relaxed);
        }
        false
    })
    .unwrap();
    assert!(reported.into_inner());
}

#[test]
fn sigmoid_with_scaled_features_trains_with_mse() {
    let folder = tempfile::tempdir().unwrap();
    let text = options(1).replace("nodes", "output_activation = 'sigmoid'\nnodes");
    let out = folder.path().join("m");
    let reported = AtomicBool::new(false);
    train_until(&file(folder.path(), &text), &out, false, |event| {
        reported.fetch_or(
            matches!(event, TrainEvent::OutOfRange(_)),
            Ordering::Relaxed,
        );
        false
    })
    .unwrap();
    assert!(reported.into_inner(), "a sigmoid does not reach all values");
    let card = ModelCard::read(&out.join(CARD)).unwrap();
    assert_eq!(card.loss, Loss::Mse);
}

#[test]
fn training_without_held_out_records_has_no_validation_loss() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}[data]\nvalidation = 0\n", options(2));
    let trained = train_all(&file(folder.path(), &text), &folder.path().join("m"), false).unwrap();
    assert_eq!((trained.held_out, trained.best_epoch), (0, Some(2)));
    assert!(
        trained
            .curve
            .iter()
            .all(|point| point.validation_loss.is_none())
    );
}

#[test]
fn stop_after_the_data_is_ready_keeps_only_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (file(folder.path(), &options(2)), folder.path().join("m"));
    let is_ready = |event: &TrainEvent<'_>| matches!(event, TrainEvent::Prepared(_));
    let result = train_until(&file, &out, false, is_ready).unwrap();
    assert!(!result.finished && !result.has_checkpoint && result.best_epoch.is_none());
    assert!(contents(&out).is_empty());
    let path = WorkFolder::path_in(&out);
    assert!(path.join("data/manifest.json").exists());
    drop(WorkFolder::acquire(&out, false).unwrap());
    assert!(train_all(&file, &out, false).unwrap().finished);
}

fn card(model: &Path) -> ModelCard {
    ModelCard::read(&model.join(CARD)).unwrap()
}

#[test]
fn derived_batch_and_warmup_are_recorded_and_may_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m");
    let derived = options(30).replace("batch_size = 8\n", "");
    let third_epoch =
        |event: &TrainEvent<'_>| matches!(event, TrainEvent::Epoch(point, _) if point.epoch == 3);
    let stopped = train_until(&file(folder.path(), &derived), &out, false, third_epoch).unwrap();
    assert!(stopped.has_checkpoint);
    let other = options(30).replace("batch_size = 8", "batch_size = 32");
    let refused = train_all(&file(folder.path(), &other), &out, false).unwrap_err();
    assert!(matches!(refused, TrainError::Changed(_)), "{refused}");
    // The same numbers, written out, are the same training; so is one with more epochs.
    let written = options(60).replace("batch_size = 8", "batch_size = 16\nwarmup = 6");
    assert!(
        train_all(&file(folder.path(), &written), &out, false)
            .unwrap()
            .finished
    );
    let numbers = card(&out).training.unwrap().hyperparameters;
    assert_eq!(
        (&numbers["batch_size"], &numbers["warmup"]),
        (&16.into(), &6.into())
    );
}

#[test]
fn model_that_is_worse_than_principal_components_is_reported() {
    let compared = |rate: &str| {
        let folder = tempfile::tempdir().unwrap();
        let text = options(40).replace("epochs", &format!("learning_rate = {rate}\nepochs"));
        let out = folder.path().join("m");
        let mut found = None;
        let never = Arc::new(AtomicBool::new(false));
        let options = TrainOptions {
            restart: false,
            stop: never,
        };
        testing::init();
        train(&file(folder.path(), &text), &out, &options, &mut |event| {
            if let TrainEvent::WorseThanPca(pca) = event {
                found = Some(pca.clone());
            }
        })
        .unwrap();
        (found, card(&out).metrics)
    };
    let (found, metrics) = compared("1e-9");
    let PcaComparison {
        model_mse,
        pca_mse,
        components,
    } = found.unwrap();
    assert!(components == 1 && model_mse > pca_mse);
    assert!((metrics["pca_mse"] - pca_mse).abs() < 1e-5 * pca_mse);
    let (trained, better) = compared("0.02");
    assert_eq!(trained.is_some(), better["mse"] > better["pca_mse"]);
}

#[test]
fn training_that_exceeds_the_memory_is_refused() {
    let limited = |limit: &str, nodes: &str| {
        options(2)
            .replace("nodes = [4]", nodes)
            .replace("batch_size = 8", "batch_size = 64")
            + &format!("[data]\nlimits = {{ memory = '{limit}' }}\n")
    };
    let message = refused(&limited("200MiB", "nodes = [2000, 2000]"));
    assert!(
        message.starts_with("training.batch_size: the training requires up to ")
            && message.contains("`data.limits.memory` allows 200.0 MiB; the largest part is ")
            && message.contains(" for weights, their gradients"),
        "{message}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path(), &limited("200MiB", "nodes = [4]"));
    assert!(
        train_all(&file, &folder.path().join("m"), false)
            .unwrap()
            .finished
    );
}
