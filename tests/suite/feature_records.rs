//! Tests of models that are trained on tables with gaps, categories and times.
#![cfg(feature = "train")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use latentflow::model::ModelCard;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};
use crate::reasons::{Normal, assert_report_explains, scored, scoring, train};

const MODES: [&str; 3] = ["eco", "boost", "idle"];

/// A reading every five minutes: the temperature follows the time of day, the power the mode, and
/// the vibration the power.
struct Reading {
    seconds: i64,
    mode: &'static str,
    open: bool,
    temperature: Option<f64>,
    power: Option<f64>,
    vibration: f64,
    pressure: Option<f64>,
}

impl Reading {
    fn new(number: i64, normal: &mut Normal) -> Self {
        let seconds = 1_772_000_000 + number * 300;
        let angle = (seconds % 86_400) as f64 / 86_400.0 * std::f64::consts::TAU;
        let mode = [0, 0, 0, 1, 1, 2][normal.below(6)];
        let power = [90.0, 900.0, 20.0][mode] * (0.15 * normal.next()).exp();
        Self {
            seconds,
            mode: MODES[mode],
            open: normal.below(4) == 0,
            temperature: Some(20.0 + 3.0 * angle.sin() + 0.3 * normal.next()),
            power: Some(power),
            vibration: 0.1 + power / 1500.0 + 0.02 * normal.next(),
            pressure: Some(1013.0 + normal.next()),
        }
    }
}

fn write(path: &Path, readings: &[Reading]) {
    let numbers = Int64Array::from_iter_values(0..i64::try_from(readings.len()).unwrap());
    let floats = |value: fn(&Reading) -> Option<f64>| -> ArrayRef {
        Arc::new(readings.iter().map(value).collect::<Float64Array>())
    };
    let times = readings.iter().map(|one| one.seconds * 1_000_000);
    let modes = readings.iter().map(|one| one.mode);
    let open: Vec<bool> = readings.iter().map(|one| one.open).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("number", Arc::new(numbers)),
        (
            "time",
            Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
        ),
        ("mode", Arc::new(StringArray::from_iter_values(modes))),
        ("open", Arc::new(BooleanArray::from(open))),
        ("temperature", floats(|one| one.temperature)),
        ("power", floats(|one| one.power)),
        ("vibration", floats(|one| Some(one.vibration))),
        ("pressure", floats(|one| one.pressure)),
    ];
    let records = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), records.schema(), None);
    let writer = writer.as_mut().unwrap();
    writer.write(&records).unwrap();
    writer.finish().unwrap();
}

const TRAINING: &str = r#"
name = "m"
kind = "deep"
code_size = 6
[input]
columns = ["temperature", "power", "vibration", "pressure", "mode", "open", "time"]
[[input.rules]]
columns = ["temp*", "power"]
impute = "median"
indicator = true
[[input.rules]]
columns = ["vibration"]
scaling = "robust"
clip_max = 100.0
[[input.rules]]
columns = ["mode"]
encoding = "one_hot"
[[input.rules]]
columns = ["time"]
cyclic = ["hour_of_day"]
[network]
nodes = [32, 16]
[training]
epochs = 30
batch_size = 64
learning_rate = 0.003
[data]
validation = 0.2
[[data.sources]]
kind = "parquet"
path = "normal.parquet"
"#;

#[test]
fn reasons_name_columns_with_gaps_and_categories() {
    let folder = tempfile::tempdir().unwrap();
    let mut normal = Normal(11);
    let mut readings: Vec<Reading> = (0..3000)
        .map(|number| Reading::new(number, &mut normal))
        .collect();
    let mut without_pressure = 0;
    for reading in &mut readings {
        match normal.below(20) {
            0 => reading.temperature = None,
            1 => reading.power = Some(f64::NAN),
            2 => {
                reading.pressure = None;
                without_pressure += 1;
            }
            _ => {}
        }
    }
    write(&folder.path().join("normal.parquet"), &readings);
    let mut faulty: Vec<Reading> = (5000..5090)
        .map(|number| Reading::new(number, &mut normal))
        .collect();
    let expected = ["vibration", "temperature", "mode"];
    for (number, reading) in faulty.iter_mut().enumerate() {
        match number % 3 {
            0 => reading.vibration += 1.0,
            1 => reading.temperature = Some(45.0),
            _ => reading.mode = "turbo",
        }
    }
    write(&folder.path().join("faults.parquet"), &faulty);
    let log = train(folder.path(), TRAINING);
    assert!(
        log.contains("[[input.rules]]") && log.contains("pressure"),
        "{log}"
    );
    let card = ModelCard::read(&folder.path().join("m/model.toml")).unwrap();
    let training = card.training.unwrap();
    assert_eq!(
        training.nulls,
        BTreeMap::from([("pressure".to_owned(), without_pressure)])
    );
    assert_eq!(training.rejects, without_pressure);
    assert_eq!(card.input.rules.len(), 7);
    let mode = &card.input.rules[4];
    assert_eq!(
        mode.categories.as_deref().unwrap(),
        ["boost", "eco", "idle"]
    );
    // Errors are those of columns, and means those of the inputs that the columns become.
    let features = card.reconstruction_error.unwrap().features.unwrap();
    assert_eq!(
        (features.mean.len(), features.value_mean.unwrap().len()),
        (7, 13)
    );

    let source = "kind = 'parquet'\npath = 'faults.parquet'";
    let (output, _) = run(folder.path(), &scoring(source), &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let scored = scored(folder.path());
    assert_eq!(scored.len(), 90);
    let is_right = |(number, zscore, top): &&(i64, f32, Vec<String>)| {
        *zscore > 3.0 && top[0] == expected[usize::try_from(number % 3).unwrap()]
    };
    let right = scored.iter().filter(is_right).count();
    assert!(
        right * 100 >= 95 * 90,
        "{right} of 90 first reasons are right: {scored:?}"
    );
    let path = data_files(&folder.path().join("out")).remove(0);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
    let batch = reader.unwrap().build().unwrap().next().unwrap().unwrap();
    assert_eq!(
        batch["feature_errors"].as_fixed_size_list().value_length(),
        7
    );
    assert_eq!(batch["features"].as_fixed_size_list().value_length(), 13);

    let evaluated = latentflow(folder.path(), &["evaluate", "m"])
        .output()
        .unwrap();
    assert!(evaluated.status.success(), "{}", errors(&evaluated));
    let shown = String::from_utf8_lossy(&evaluated.stdout).into_owned() + &errors(&evaluated);
    assert!(!shown.contains("the records differ"), "{shown}");
    assert_report_explains(folder.path());
}
