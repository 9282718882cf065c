//! Tests of the preparation of real training data in the folder `LATENTFLOW_TEST_DATA`.

use std::sync::atomic::AtomicBool;

use expect_test::{Expect, expect};
use latentflow::data::{
    DataSpec, DatasetStatistics, PreparedDataset, Record, RecordValues, Subset, prepare,
};
use latentflow::model::input::spec::InputSpec;
use serde::Deserialize;

use crate::common::test_data::test_data;

/// The tables of a training file that declare data.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    input: InputSpec,
    data: DataSpec,
}

/// Prepares declared data twice, the second time from the prepared files, and compares a summary.
fn check(declared: &str, expected: Expect) {
    let Some(root) = test_data("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut file: File = toml::from_str(declared).unwrap();
    file.data.root = Some(root);
    let prepare = || prepare(&file.data, &file.input, folder.path(), &mut |_| {}).unwrap();
    let first = prepare();
    let again = prepare();
    assert!(!first.reused && again.reused);
    assert_eq!(summarize(&first), summarize(&again));
    expected.assert_eq(&summarize(&first));
}

fn summarize(prepared: &PreparedDataset) -> String {
    let lens = Subset::ALL.map(|subset| prepared.subset(subset).len());
    let mut text = format!(
        "{lens:?} shape {:?} labels {}\n",
        prepared.shape,
        prepared.labels.join(" ")
    );
    if !prepared.columns.is_empty() {
        text += &format!(
            "columns {:.60} values {}\n",
            prepared.columns.join(" "),
            prepared.value_names == prepared.columns
        );
    }
    let anomalies = prepared.anomalies;
    text += &format!(
        "anomalies {anomalies} left out {} rejects {}\n",
        prepared.left_out, prepared.rejects
    );
    text += &format!("digest {:.12}\n", prepared.digest);
    let mut record = Record::default();
    prepared.training.read(0, &mut record).unwrap();
    let values: Vec<f64> = match record.values {
        RecordValues::U8(values) => values.into_iter().map(f64::from).collect(),
        RecordValues::F64(values) => values,
        RecordValues::F32(values) => values.into_iter().map(f64::from).collect(),
    };
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    text += &format!(
        "first {:?} mean {mean:.4} label {:?}\n",
        record.shape, record.label
    );
    let statistics = DatasetStatistics::compute(&prepared.training, &AtomicBool::new(false));
    let statistics = statistics.unwrap().unwrap();
    text += &format!(
        "mean {:.4} std {:.4} of the first column\n",
        statistics.mean[0], statistics.std[0]
    );
    text
}

#[test]
fn idx_images_are_prepared() {
    let declared = r#"
        [input]
        type = "image"
        size = [28, 28]
        channels = "gray"

        [data]
        label = "label"
        test = 0.1
        sources = [{ kind = "idx", path = "images/fashion_mnist/train-images-idx3-ubyte.gz", labels = "images/fashion_mnist/train-labels-idx1-ubyte.gz" }]
    "#;
    check(
        declared,
        expect![[r#"
        [48134, 6034, 5832] shape Some([28, 28, 1]) labels 0 1 2 3 4 5 6 7 8 9
        anomalies 0 left out 0 rejects 0
        digest e0c7a22ea7ff
        first [28, 28, 1] mean 97.2538 label Some(9)
        mean 72.8422 std 89.9877 of the first column
    "#]],
    );
}

#[test]
fn images_of_original_size_are_prepared() {
    let declared = r#"
        [data]
        sources = [{ kind = "images", path = "images/bsds500_train" }]
    "#;
    check(
        declared,
        expect![[r#"
            [178, 22, 0] shape None labels 
            anomalies 0 left out 0 rejects 0
            digest 069dab2dc300
            first [321, 481, 3] mean 91.7391 label None
            mean 112.0065 std 63.8270 of the first column
        "#]],
    );
}

#[test]
fn images_in_folders_of_classes_are_prepared() {
    let declared = r#"
        [input]
        size = [32, 32]

        [data]
        label = "label"
        sources = [{ kind = "images", path = "images/cifar10_jpg", folder_labels = true }]
    "#;
    check(
        declared,
        expect![[r#"
            [886, 114, 0] shape Some([32, 32, 3]) labels airplane automobile bird cat deer dog frog horse ship truck
            anomalies 0 left out 0 rejects 0
            digest 5994aed824fa
            first [32, 32, 3] mean 148.5742 label Some(0)
            mean 124.8273 std 61.9452 of the first column
        "#]],
    );
}

#[test]
fn gray_images_of_one_size_are_prepared() {
    let declared = r#"
        [input]
        channels = "gray"

        [data]
        sources = [{ kind = "images", path = "denoise/Train400" }]
    "#;
    check(
        declared,
        expect![[r#"
        [358, 42, 0] shape Some([180, 180, 1]) labels 
        anomalies 0 left out 0 rejects 0
        digest 66dc6af31e82
        first [180, 180, 1] mean 95.8557 label None
        mean 110.0737 std 58.1681 of the first column
    "#]],
    );
}

#[test]
fn npz_archive_with_anomalies_is_prepared() {
    let declared = r#"
        [data]
        sources = [{ kind = "npz", path = "tabular/adbench/38_thyroid.npz" }]
        normal = { column = "y", equals = 0 }
        test = 0.3
    "#;
    check(
        declared,
        expect![[r#"
        [2240, 354, 1178] shape Some([1, 1, 6]) labels 
        columns X values false
        anomalies 93 left out 0 rejects 0
        digest 03c1168346b9
        first [1, 1, 6] mean 0.2467 label None
        mean 0.5392 std 0.2064 of the first column
    "#]],
    );
}

#[test]
fn csv_with_text_columns_is_prepared() {
    let declared = r#"
        [data]
        label = "attack"
        normal = { column = "attack", equals = "normal" }
        without = ["difficulty"]
        test = 0.2

        [[data.sources]]
        kind = "csv"
        path = "tabular/nsl_kdd/KDDTrain+_20Percent.txt"
        header = false
        columns = [
            "duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land", "wrong_fragment", "urgent",
            "hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell", "su_attempted", "num_root",
            "num_file_creations", "num_shells", "num_access_files", "num_outbound_cmds", "is_host_login",
            "is_guest_login", "count", "srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate",
            "same_srv_rate", "diff_srv_rate", "srv_diff_host_rate", "dst_host_count", "dst_host_srv_count",
            "dst_host_same_srv_rate", "dst_host_diff_srv_rate", "dst_host_same_src_port_rate",
            "dst_host_srv_diff_host_rate", "dst_host_serror_rate", "dst_host_srv_serror_rate", "dst_host_rerror_rate",
            "dst_host_srv_rerror_rate", "attack", "difficulty",
        ]
    "#;
    check(
        declared,
        expect![[r#"
        [9329, 1457, 14406] shape Some([1, 1, 38]) labels back buffer_overflow ftp_write guess_passwd imap ipsweep land loadmodule multihop neptune nmap normal phf pod portsweep rootkit satan smurf spy teardrop warezclient warezmaster
        columns duration src_bytes dst_bytes land wrong_fragment urgent hot  values true
        anomalies 11743 left out 0 rejects 0
        digest 9f8a24e39c90
        first [1, 1, 38] mean 10.9924 label Some(11)
        mean 190.3451 std 1380.5453 of the first column
    "#]],
    );
}

#[test]
fn columns_aligned_by_spaces_are_prepared() {
    let declared = r#"
        [data]
        label = "column_1"
        normal = { column = "column_1", equals = 1 }
        test = 0.2
        sources = [{ kind = "csv", path = "tabular/ecg5000/ECG5000_TRAIN.txt", header = false, delimiter = " ", aligned = true }]
    "#;
    check(
        declared,
        expect![[r#"
        [204, 23, 273] shape Some([1, 1, 140]) labels 1 2 3 4 5
        columns column_2 column_3 column_4 column_5 column_6 column_7 column values true
        anomalies 208 left out 0 rejects 0
        digest 9d9de0d28855
        first [1, 1, 140] mean 0.0000 label Some(0)
        mean -0.2647 std 1.3252 of the first column
    "#]],
    );
}
