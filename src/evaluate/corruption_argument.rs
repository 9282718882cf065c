//! A corruption as an argument, such as `gaussian:25`.

use serde_json::json;

use crate::corruption::Strength;
use crate::corruption::spec::{CorruptionKind, CorruptionSpec};
use crate::evaluate::options::EvaluateError;

/// Returns the corruption of an argument: the noise, and its amount after a colon.
///
/// # Errors
/// If the noise is unknown, or the amount is missing, is not a number, or lies outside of its range.
pub(super) fn parse(text: &str) -> Result<CorruptionSpec, EvaluateError> {
    let invalid = |fault: String| EvaluateError::Argument(format!("--corrupt {text}: {fault}"));
    let (noise, amount) = text
        .split_once(':')
        .map_or((text, None), |(noise, amount)| (noise, Some(amount)));
    let amount = amount.map(|amount| {
        let number = amount.parse::<f64>().map(Strength::Fixed);
        number.map_err(|_| {
            invalid(format!(
                "`{amount}` is not a number; expected a value such as gaussian:25"
            ))
        })
    });
    let amount = amount.transpose()?;
    let noise: CorruptionKind =
        serde_json::from_value(json!(noise)).map_err(|error| invalid(error.to_string()))?;
    let mut spec = CorruptionSpec::of(noise);
    match noise {
        CorruptionKind::Gaussian | CorruptionKind::Blur => spec.sigma = amount,
        CorruptionKind::Poisson => spec.peak = amount,
        CorruptionKind::Downscale => spec.factor = amount,
        CorruptionKind::Jpeg => spec.quality = amount,
        CorruptionKind::Masking | CorruptionKind::SaltAndPepper => spec.rate = amount,
        CorruptionKind::WatermarkText
        | CorruptionKind::WatermarkGrid
        | CorruptionKind::Watermark => spec.opacity = amount,
        CorruptionKind::Gray if amount.is_some() => {
            return Err(invalid(
                "`gray` takes no amount; expected `gray`".to_owned(),
            ));
        }
        CorruptionKind::Gray => {}
    }
    match spec.faults().into_iter().next() {
        Some(fault) => Err(invalid(format!("{} {}", fault.key, fault.message))),
        None => Ok(spec),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};

    use super::*;

    fn check(parsed: Result<String, EvaluateError>, expected: Expect) {
        expected.assert_eq(&parsed.unwrap_or_else(|error| error.to_string()));
    }

    #[test]
    fn corruption_argument_is_parsed_as_noise_and_amount() {
        let parse =
            |text: &str| super::parse(text).map(|spec| serde_json::to_string(&spec).unwrap());
        check(
            parse("gaussian:25"),
            expect![[r#"{"noise":"gaussian","sigma":25.0}"#]],
        );
        check(parse("watermark"), expect![[r#"{"noise":"watermark"}"#]]);
        check(
            parse("salt_and_pepper:0.1"),
            expect![[r#"{"noise":"salt_and_pepper","rate":0.1}"#]],
        );
        check(
            parse("gaussian"),
            expect![
                "--corrupt gaussian: sigma is missing; expected the standard deviation, \
                 such as 25 for pixels"
            ],
        );
        check(
            parse("masking:2"),
            expect!["--corrupt masking:2: rate must lie between 0 and 1; met 2"],
        );
        check(
            parse("gauss:2"),
            expect![
                "--corrupt gauss:2: unknown variant `gauss`, expected one of `gaussian`, \
                 `poisson`, `masking`, `salt_and_pepper`, `blur`, `downscale`, `jpeg`, \
                 `watermark_text`, `watermark_grid`, `watermark`, `gray`"
            ],
        );
        check(
            parse("gaussian:loud"),
            expect![
                "--corrupt gaussian:loud: `loud` is not a number; expected a value such as \
                 gaussian:25"
            ],
        );
        check(
            parse("gray:1"),
            expect!["--corrupt gray:1: `gray` takes no amount; expected `gray`"],
        );
    }
}
