//! Unit tests of the module `elementwise`.

use super::*;

/// Returns small and large numbers of both signs.
fn numbers() -> impl Iterator<Item = f32> {
    (-20_000..=20_000).map(|i| i as f32 / 200.0)
}

fn close(name: &str, found: impl Fn(f32) -> f32, expected: impl Fn(f64) -> f64) {
    for x in numbers().chain([1e-6, -1e-4, 0.03]) {
        let (found, expected) = (f64::from(found(x)), expected(f64::from(x)));
        let off = (found - expected).abs() / (expected.abs() + 1e-6);
        assert!(
            off < 1e-6 || (x < -87.0 && found.abs() < 1e-37),
            "{name}({x}) is {found}, not {expected}"
        );
    }
}

#[test]
fn functions_are_those_of_the_standard_library() {
    close("exp", |x| exp(x.min(88.0)), |x| x.min(88.0).exp());
    close("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
    close("tanh", tanh, f64::tanh);
    close("softplus", softplus, |x| {
        if x > 50.0 { x } else { x.exp().ln_1p() }
    });
}

#[test]
fn nan_is_not_hidden() {
    for f in [exp, sigmoid, tanh, softplus] {
        assert!(f(f32::NAN).is_nan());
    }
    for kind in [
        Activation::Relu,
        Activation::LeakyRelu,
        Activation::Elu,
        Activation::Silu,
    ] {
        let mut values = [f32::NAN];
        activate(kind, &mut values);
        assert!(values[0].is_nan(), "{kind:?}");
    }
}

#[test]
fn rows_are_added_column_by_column() {
    for (rows, columns) in [(1, 3), (ROWS + 7, 3), (2 * ROWS, 1)] {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i % 5) as f32).collect();
        let mut out = vec![1.0; columns];
        add_rows(&values, &mut out);
        for (column, &found) in out.iter().enumerate() {
            let expected: f32 = values.iter().skip(column).step_by(columns).sum();
            assert_eq!(found, 1.0 + expected, "{rows} x {columns}, {column}");
        }
    }
}

#[test]
fn losses_are_sums_over_any_count_of_values() {
    for len in [1, LANES, LANES + 3, CHUNK + 5, 3 * CHUNK + 17] {
        let output: Vec<f32> = (0..len).map(|i| (i % 7) as f32).collect();
        let target = vec![1.0; len];
        let mut gradient = vec![f32::NAN; len];
        let found = squared_error(&output, &target, 0.5, &mut gradient);
        let expected = output
            .iter()
            .map(|x| f64::from((x - 1.0) * (x - 1.0)))
            .sum::<f64>();
        assert!(
            (found - expected).abs() < 1e-5 * expected,
            "{len}: {found} {expected}"
        );
        assert!(gradient.iter().zip(&output).all(|(g, x)| *g == x - 1.0));
    }
}
