//! Comparisons with the images that the libraries returned, which `tests/preprocess/make_resample.py`
//! made.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Fixture {
    height: usize,
    width: usize,
    values: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    library: ResampleLibrary,
    filter: ResampleFilter,
    antialias: Option<bool>,
    size: (usize, usize),
    values: Vec<f32>,
}

#[test]
fn every_filter_equals_that_of_its_library_within_one_step() {
    let text = include_str!("../../../tests/preprocess/resample.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    let image = SampleGrid {
        height: fixture.height,
        width: fixture.width,
        channels: 1,
        values: fixture.values,
    };
    let mut wrong = Vec::new();
    for case in &fixture.cases {
        let name = format!(
            "{} {} {:?} {:?}",
            case.library, case.filter, case.antialias, case.size
        );
        let by = Resampling::new(case.filter, case.antialias, case.library).unwrap();
        let resized = image.resample(case.size, by);
        assert_eq!(resized.values.len(), case.values.len(), "{name}");
        let distances = resized.values.iter().zip(&case.values);
        let greatest = distances.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if greatest > 1.0 {
            wrong.push(format!("{name}: {greatest}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fixture.cases.len() > 150, "{}", fixture.cases.len());
}
