//! Tests of the features that `score` names for unusual records, with a model that is trained here.
#![cfg(feature = "train")]

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, FixedSizeListArray, Float64Array, Int64Array, RecordBatch,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type};
use latentflow::model::ModelCard;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};

const FEATURES: usize = 24;
const FACTORS: usize = 4;
const ROWS: usize = 3000;
const FAULTY: usize = 200;

/// Pseudorandom numbers with a normal distribution: the sums of 12 uniform numbers.
pub(crate) struct Normal(pub(crate) u64);

impl Normal {
    pub(crate) fn next(&mut self) -> f64 {
        let uniform = |state: &mut u64| {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (*state >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..12).map(|_| uniform(&mut self.0)).sum::<f64>() - 6.0
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.next();
        (self.0 >> 33) as usize % count
    }
}

/// Records of features that are sums of a few common factors and noise, so that each is correlated
/// with all others. The features have different units.
struct Sensors {
    loadings: Vec<[f64; FACTORS]>,
    normal: Normal,
}

impl Sensors {
    fn new() -> Self {
        let mut normal = Normal(7);
        let loadings = (0..FEATURES).map(|_| [(); FACTORS].map(|()| normal.next()));
        Self {
            loadings: loadings.collect(),
            normal,
        }
    }

    fn record(&mut self) -> Vec<f64> {
        let factors = [(); FACTORS].map(|()| self.normal.next());
        let mut values = Vec::new();
        for (feature, loadings) in self.loadings.iter().enumerate() {
            let common: f64 = loadings
                .iter()
                .zip(factors)
                .map(|(one, other)| one * other)
                .sum();
            values.push((common + 0.6 * self.normal.next()) * unit(feature) + 100.0);
        }
        values
    }

    /// A record in which `count` features are 4 standard deviations too high or too low.
    fn faulty(&mut self, count: usize) -> (Vec<f64>, Vec<usize>) {
        let mut record = self.record();
        let mut faults = Vec::new();
        while faults.len() < count {
            let feature = self.normal.below(FEATURES);
            if faults.contains(&feature) {
                continue;
            }
            let squares: f64 = self.loadings[feature].iter().map(|one| one * one).sum();
            let deviation = (squares + 0.36).sqrt() * unit(feature);
            record[feature] += [4.0, -4.0][self.normal.below(2)] * deviation;
            faults.push(feature);
        }
        (record, faults)
    }
}

fn unit(feature: usize) -> f64 {
    [0.01, 1.0, 250.0][feature % 3]
}

pub(crate) fn train(folder: &Path, text: &str) -> String {
    std::fs::write(folder.join("t.toml"), text).unwrap();
    let arguments = ["train", "t.toml", "--out", "m", "--threads", "1"];
    let output = latentflow(folder, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    errors(&output)
}

/// A pipeline that scores the records of a source.
pub(crate) fn scoring(source: &str) -> String {
    format!(
        "[models.m]\npath = 'm'\n[stages.in]\n{source}\n\
         [stages.f]\nkind = 'features'\ninputs = ['in']\nmodel = 'm'\nkeep = true\n\
         [stages.e]\nkind = 'encode'\ninputs = ['f']\nmodel = 'm'\ncolumn = 'features'\nreconstruct = true\n\
         keep_reconstruction = true\nkeep = true\n\
         [stages.s]\nkind = 'score'\ninputs = ['e']\noriginal = 'features'\n\
         reconstruction = 'reconstruction'\nmodel = 'm'\nmetrics = []\nzscore = true\n\
         feature_errors = true\ntop_features = 2\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['s']\npath = 'out'\n"
    )
}

/// The rows of the output: the number of the row, the z-score, and the names of the top features.
pub(crate) fn scored(folder: &Path) -> Vec<(i64, f32, Vec<String>)> {
    let mut rows = Vec::new();
    for path in data_files(&folder.join("out")) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap().map(Result::unwrap) {
            let numbers = batch["number"].as_primitive::<Int64Type>();
            let zscores = batch["zscore"].as_primitive::<Float32Type>();
            for row in 0..batch.num_rows() {
                let top = batch["top_features"].as_list::<i32>().value(row);
                let names = top.as_struct().column(0).as_string::<i32>().iter();
                let names = names.map(|name| name.unwrap().to_owned()).collect();
                rows.push((numbers.value(row), zscores.value(row), names));
            }
        }
    }
    rows
}

#[test]
fn first_reason_is_a_faulty_one_of_24_features() {
    let folder = tempfile::tempdir().unwrap();
    let mut sensors = Sensors::new();
    let names: Vec<String> = (0..FEATURES).map(|feature| format!("s{feature}")).collect();
    let line = |record: &[f64]| {
        let values: Vec<String> = record.iter().map(ToString::to_string).collect();
        values.join(",")
    };
    let mut rows = names.join(",") + "\n";
    for _ in 0..ROWS {
        rows += &(line(&sensors.record()) + "\n");
    }
    std::fs::write(folder.path().join("normal.csv"), rows).unwrap();
    let mut faults = Vec::new();
    let mut faulty_rows = format!("number,{}\n", names.join(","));
    for number in 0..FAULTY {
        let (record, wrong) = sensors.faulty(1 + number % 2);
        faults.push(wrong);
        writeln!(faulty_rows, "{number},{}", line(&record)).unwrap();
    }
    std::fs::write(folder.path().join("faults.csv"), faulty_rows).unwrap();
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    train(
        folder.path(),
        &format!(
            "name = 'm'\nkind = 'deep'\ncode_size = 4\n[input]\ntype = 'features'\n\
             columns = [{}]\n[network]\nnodes = [16]\n[training]\nepochs = 12\nbatch_size = 32\n\
             learning_rate = 0.005\n[data]\nvalidation = 0.2\n[[data.sources]]\nkind = 'csv'\n\
             path = 'normal.csv'\n",
            quoted.join(", ")
        ),
    );
    let source = "kind = 'csv'\npath = 'faults.csv'\ntypes = { number = 'int' }";
    let (output, _) = run(folder.path(), &scoring(source), &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let scored = scored(folder.path());
    assert_eq!(scored.len(), FAULTY);
    let is_faulty = |number: i64, name: &String| {
        let wrong = &faults[usize::try_from(number).unwrap()];
        wrong.iter().any(|&feature| *name == names[feature])
    };
    let unusual = scored.iter().filter(|(_, zscore, _)| *zscore > 3.0).count();
    let first = scored
        .iter()
        .filter(|(number, _, top)| is_faulty(*number, &top[0]));
    let both = scored.iter().filter(|(number, _, top)| {
        number % 2 == 1 && top.iter().all(|name| is_faulty(*number, name))
    });
    let (first, both) = (first.count(), both.count());
    assert!(
        unusual * 10 >= 9 * FAULTY,
        "only {unusual} rows are unusual"
    );
    assert!(
        first * 10 >= 9 * FAULTY,
        "only {first} first reasons are right"
    );
    assert!(
        both * 10 >= 9 * FAULTY / 2,
        "only {both} of the pairs of reasons are right"
    );
    assert_report_explains(folder.path());
}

/// The page of a model shows the same ranking for its unusual examples.
pub(crate) fn assert_report_explains(folder: &Path) {
    let faults = ["faults.csv", "faults.parquet"];
    let faults = faults.iter().find(|faults| folder.join(faults).exists());
    let arguments = ["report", "m", "--source", faults.unwrap()];
    let output = latentflow(folder, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("share of the error") && page.contains("(occlusion)"));
}

/// Writes a list column `values` and a column `number`.
fn write_lists(path: &Path, rows: &[[f32; 4]]) {
    let numbers = Int64Array::from_iter_values(0..i64::try_from(rows.len()).unwrap());
    let item = Arc::new(Field::new("item", DataType::Float64, false));
    let values = rows.concat().into_iter().map(f64::from);
    let values = Arc::new(Float64Array::from_iter_values(values));
    let lists = FixedSizeListArray::new(item, 4, values, None);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("number", Arc::new(numbers)), ("values", Arc::new(lists))];
    let records = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), records.schema(), None);
    let writer = writer.as_mut().unwrap();
    writer.write(&records).unwrap();
    writer.finish().unwrap();
}

#[test]
fn model_of_a_list_column_names_the_values_of_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let mut normal = Normal(3);
    let mut row = || {
        let (one, other) = (normal.next() as f32, normal.next() as f32);
        [
            one,
            one + 0.1 * normal.next() as f32,
            other,
            other + 0.1 * normal.next() as f32,
        ]
    };
    let rows: Vec<[f32; 4]> = (0..600).map(|_| row()).collect();
    write_lists(&folder.path().join("normal.parquet"), &rows);
    let mut faulty: Vec<[f32; 4]> = (0..8).map(|_| row()).collect();
    for record in &mut faulty {
        record[2] += 6.0;
    }
    write_lists(&folder.path().join("faults.parquet"), &faulty);
    train(
        folder.path(),
        "name = 'm'\nkind = 'vanilla'\ncode_size = 2\n[input]\ntype = 'features'\n\
         columns = ['values']\n[training]\nepochs = 20\nbatch_size = 32\nlearning_rate = 0.01\n\
         [data]\nvalidation = 0.2\n[[data.sources]]\nkind = 'parquet'\npath = 'normal.parquet'\n",
    );
    let card = ModelCard::read(&folder.path().join("m/model.toml")).unwrap();
    let names = ["values[0]", "values[1]", "values[2]", "values[3]"];
    assert_eq!(card.input.columns.unwrap(), names);
    let features = card.reconstruction_error.unwrap().features.unwrap();
    assert_eq!(
        (features.mean.len(), features.value_mean.unwrap().len()),
        (4, 4)
    );
    assert!(features.ranking.unwrap().contains("occlusion"));
    let source = "kind = 'parquet'\npath = 'faults.parquet'";
    let (output, _) = run(folder.path(), &scoring(source), &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let top: Vec<String> = scored(folder.path())
        .into_iter()
        .map(|(_, _, top)| top[0].clone())
        .collect();
    assert_eq!(top, vec!["values[2]"; 8]);
    let evaluated = latentflow(folder.path(), &["evaluate", "m"])
        .output()
        .unwrap();
    assert!(evaluated.status.success(), "{}", errors(&evaluated));
    let shown = String::from_utf8_lossy(&evaluated.stdout).into_owned() + &errors(&evaluated);
    assert!(!shown.contains("the records differ"), "{shown}");
    // The list may have another name.
    let renamed = scoring(source).replace(
        "model = 'm'\nkeep = true",
        "model = 'm'\ncolumns = ['values']\nkeep = true",
    );
    let renamed = renamed.replace("path = 'out'", "path = 'other'");
    std::fs::write(folder.path().join("q.toml"), renamed).unwrap();
    let checked = latentflow(folder.path(), &["check", "q.toml"])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", errors(&checked));
}
