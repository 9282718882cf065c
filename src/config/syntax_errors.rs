//! Explains syntax errors of TOML files by the mistake that causes them: text without quotes, words
//! of other languages, or YAML in place of TOML.

/// Maximum length in bytes of a word or value that an explanation quotes.
const MAX_QUOTED: usize = 200;

/// Returns the mistake and its remedy for an error that the TOML parser reports with `message` at
/// the byte `position` of `text`; `None` if the mistake is not a known one.
#[must_use]
pub(crate) fn explain(text: &str, position: usize, message: &str) -> Option<String> {
    let (line, place) = line_at(text, position)?;
    let Some(equals) = line.find('=') else {
        return match is_value_error(message) {
            true => explain_word(word_at(line, place)?, None),
            false => explain_line(line),
        };
    };
    if place <= equals {
        return None;
    }
    let (key, value) = (line[..equals].trim(), bare(&line[equals + 1..]));
    match value.chars().next() {
        None => Some(format!(
            "`{key}` has no value; write one, such as {key} = \"text\" or {key} = 1"
        )),
        Some('"') if message.contains("escape") => Some(
            "`\\` in double quotes begins an escape; write the text in single quotes, such as \
             'C:\\photos'"
                .to_owned(),
        ),
        Some('"' | '\'') => None,
        Some('[' | '{') if is_value_error(message) => explain_word(word_at(line, place)?, None),
        Some('[' | '{') => None,
        Some(_) => explain_word(value, Some(key)),
    }
}

/// Returns the line at a byte position of a text, and the position within the line.
fn line_at(text: &str, position: usize) -> Option<(&str, usize)> {
    let start = text.get(..position)?.rfind('\n').map_or(0, |at| at + 1);
    let rest = &text[start..];
    let end = rest.find('\n').unwrap_or(rest.len());
    Some((rest[..end].trim_end_matches('\r'), position - start))
}

/// Whether an error of the parser concerns a value rather than a key or a table.
fn is_value_error(message: &str) -> bool {
    [
        "string values must be quoted",
        "invalid float",
        "invalid boolean",
        "invalid mantissa",
        "invalid fraction",
        "invalid exponent",
        "invalid integer",
    ]
    .iter()
    .any(|start| message.starts_with(start))
}

/// Removes a comment and white space from a value that is not in quotes.
fn bare(value: &str) -> &str {
    let value = value.trim();
    if value.starts_with(['"', '\'']) {
        return value;
    }
    value.split(" #").next().unwrap_or_default().trim()
}

/// Returns the word of a line around a byte position.
fn word_at(line: &str, place: usize) -> Option<&str> {
    let is_end = |c: char| c.is_whitespace() || "[]{},=\"'#".contains(c);
    let start = line.get(..place)?.rfind(is_end);
    let start = start.map_or(0, |at| {
        at + line[at..].chars().next().map_or(1, char::len_utf8)
    });
    let word = line[start..].split(is_end).next()?;
    (!word.is_empty()).then_some(word)
}

/// Explains a value that is not TOML. `key` is its key if the value is all that follows the key.
fn explain_word(word: &str, key: Option<&str>) -> Option<String> {
    if word.len() > MAX_QUOTED || key.is_some_and(|key| key.len() > MAX_QUOTED) {
        return None;
    }
    let example = |value: &str| match key {
        Some(key) => format!("{key} = {value}"),
        None => value.to_owned(),
    };
    let lower = word.to_lowercase();
    let of_date = |c: char| c.is_ascii_digit() || "-:.+TZtz ".contains(c);
    let is_date = word.contains(['-', ':']) && word.chars().all(of_date);
    match lower.as_str() {
        _ if word.starts_with(['“', '”', '„', '‘', '’', '«']) => Some(format!(
            "`{word}` has typographic quotes; write straight ones, such as {}",
            example("\"text\"")
        )),
        "true" | "false" => Some(format!(
            "`{word}` is not a value of TOML; write {}",
            example(&lower)
        )),
        "yes" | "on" => Some(format!(
            "`{word}` is not a value of TOML; write {}, or text in quotes",
            example("true")
        )),
        "no" | "off" => Some(format!(
            "`{word}` is not a value of TOML; write {}, or text in quotes",
            example("false")
        )),
        "none" | "null" | "nil" => Some(format!(
            "`{word}` is not a value of TOML; omit the key, which then has its default"
        )),
        _ if is_date => None,
        _ if word.contains(',') && word.replace(',', ".").parse::<f64>().is_ok() => Some(format!(
            "`{word}` is not a number; write a decimal point and no other separator, such as {}",
            example(&word.replace(',', "."))
        )),
        _ if word.parse::<f64>().is_ok_and(f64::is_finite) => Some(format!(
            "`{word}` is not a number of TOML; write digits before and after the point and no \
             leading zeros, such as {}",
            example("0.5")
        )),
        _ if word.contains(['"', '\'']) => None,
        _ if word.contains('\\') => Some(format!(
            "`{word}` is text without quotes; write {}",
            example(&format!("'{word}'"))
        )),
        _ => Some(format!(
            "`{word}` is text without quotes; write {}",
            example(&format!("\"{word}\""))
        )),
    }
}

/// Explains a line without `=`.
fn explain_line(line: &str) -> Option<String> {
    let line = line.trim().trim_start_matches("- ");
    let (key, value) = line.split_once(':')?;
    let key = key.trim_matches(['"', '\'', ' ']);
    let is_key = !key.is_empty()
        && key.len() <= MAX_QUOTED
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let separates = value.is_empty() || value.starts_with([' ', '"', '\'', '[']);
    (is_key && separates).then(|| {
        format!(
            "`{key}:` is not TOML; write {key} = VALUE in place of {key}: VALUE, and a table as \
             [{key}]"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use toml::de::DeTable;

    use super::*;

    /// The explanations of all errors of a text, without duplicates.
    fn explained(text: &str) -> Vec<String> {
        let (_, errors) = DeTable::parse_recoverable(text);
        let mut all: Vec<String> = errors
            .iter()
            .map(|error| {
                let position = error.span().map_or(0, |span| span.start);
                explain(text, position, error.message()).unwrap_or_else(|| error.to_string())
            })
            .collect();
        all.dedup();
        all
    }

    #[test]
    fn text_without_quotes_is_named_with_its_line_in_quotes() {
        let quoted = |value: &str, shown: &str| {
            assert_eq!(
                explained(&format!("[stages.a]\nkind = {value} # why\npath = \"x\"\n")),
                [format!(
                    "`{value}` is text without quotes; write kind = {shown}"
                )],
            );
        };
        for word in [
            "images",
            "csv",
            "nancy",
            "text",
            "float",
            "./photos",
            "~/photos",
            "/data/my photos",
            "../a",
            "*.jpg",
            "32MiB",
            "5m",
            "0.5s",
            "s3://bucket/in",
        ] {
            quoted(word, &format!("\"{word}\""));
        }
        quoted(r"C:\photos", r"'C:\photos'");
        let listed = "`px` is text without quotes; write \"px\"";
        for list in [
            "inputs = [\"a\", px]\n",
            "inputs = [\n    \"a\",\n    px,\n]\n",
            "batch = { records = px }\n",
        ] {
            assert_eq!(explained(list), [listed], "{list}");
        }
    }

    #[test]
    fn words_and_numbers_of_other_languages_are_explained() {
        for (value, expected) in [
            ("True", "`True` is not a value of TOML; write x = true"),
            ("FALSE", "`FALSE` is not a value of TOML; write x = false"),
            (
                "yes",
                "`yes` is not a value of TOML; write x = true, or text in quotes",
            ),
            (
                "None",
                "`None` is not a value of TOML; omit the key, which then has its default",
            ),
            (
                "1,5",
                "`1,5` is not a number; write a decimal point and no other separator, such as x \
                 = 1.5",
            ),
            (
                ".5",
                "`.5` is not a number of TOML; write digits before and after the point and no \
                 leading zeros, such as x = 0.5",
            ),
            (
                "",
                "`x` has no value; write one, such as x = \"text\" or x = 1",
            ),
            (
                "“a”",
                "`“a”` has typographic quotes; write straight ones, such as x = \"text\"",
            ),
            (
                "\"C:\\photos\"",
                "`\\` in double quotes begins an escape; write the text in single quotes, such \
                 as 'C:\\photos'",
            ),
        ] {
            assert_eq!(explained(&format!("x = {value}\n")), [expected]);
        }
    }

    #[test]
    fn yaml_is_explained_and_other_errors_are_kept() {
        let yaml = explained("stages:\n  - kind: images\n");
        assert_eq!(
            yaml[0],
            "`stages:` is not TOML; write stages = VALUE in place of stages: VALUE, and a table \
             as [stages]"
        );
        for text in [
            "[stages.a\n",
            "x = \"a\n",
            "x = 2026-13-01\n",
            "x = [\"a\" \"b\"]\n",
        ] {
            let (_, errors) = DeTable::parse_recoverable(text);
            let position = errors[0].span().map_or(0, |span| span.start);
            assert_eq!(explain(text, position, errors[0].message()), None, "{text}");
        }
        let long = format!("x = {}\n", "y".repeat(100_000));
        assert_eq!(explain(&long, 4, "string values must be quoted"), None);
    }
}
