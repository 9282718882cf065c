//! The programs of `examples/`, which run with the suite.

#[path = "../../examples/encode_batch.rs"]
#[allow(dead_code)]
mod encode_batch;
#[path = "../../examples/own_source.rs"]
#[allow(dead_code)]
mod own_source;
#[path = "../../examples/run_pipeline.rs"]
#[allow(dead_code)]
mod run_pipeline;

#[test]
fn images_in_memory_are_encoded() {
    let found = encode_batch::run().unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|encoded| encoded.latent.len() == 128));
    // The model was trained on photographs: stripes are unusual, a gray area is not.
    assert!(found[1].error > 10.0 * found[0].error, "{found:?}");
}

#[test]
fn own_source_runs_in_a_pipeline() {
    // sin(0.1 n) is above 0.5 for a third of the rows.
    let expected = (0..1000u64)
        .filter(|row| 0.5 * (*row as f32 * 0.1).sin() > 0.25)
        .count();
    assert_eq!(own_source::run().unwrap(), expected as u64);
}

#[test]
fn pipeline_file_runs_inside_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    let text = format!(
        "[stages.in]\nkind = 'synthetic'\ncontent = 'features'\nrecords = 50\nwidth = 3\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['in']\npath = '{}'\n",
        folder.path().join("out").display()
    );
    std::fs::write(&path, text).unwrap();
    assert_eq!(run_pipeline::run(&path).unwrap(), 50);
}
