//! Classifies a line of JSON in one pass without parsing: whether it is one balanced object, the
//! numbers of its values and keys, and whether it is nested too deeply.

/// Maximum depth of nesting, the same as that of `serde_json`.
pub(super) const MAX_DEPTH: usize = 128;

/// The content of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineClass {
    /// Only white space.
    Blank,
    /// One object with as many closing as opening brackets; the parser checks everything else.
    Object {
        /// Upper bound on the number of its values and keyed fields.
        values: u64,
        /// The number of its keys and of those of nested objects, with repetitions.
        keys: u64,
    },
    /// The line ends before the object does.
    Incomplete,
    /// Other text follows the object.
    Trailing,
    /// The line does not begin with an object.
    NotAnObject,
    /// Nested beyond [`MAX_DEPTH`].
    TooDeep,
}

impl LineClass {
    /// Classifies a line.
    pub(super) fn classify(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        match line.first() {
            None => return Self::Blank,
            Some(b'{') => {}
            Some(_) => return Self::NotAnObject,
        }
        let (mut depth, mut values, mut keys) = (0, 0, 0);
        let mut bytes = line.iter().enumerate();
        while let Some((offset, byte)) = bytes.next() {
            if *byte == b'"' && !skip_string(&mut bytes) {
                return Self::Incomplete;
            }
            match byte {
                b'{' | b'[' => {
                    depth += 1;
                    values += 1;
                    if depth > MAX_DEPTH {
                        return Self::TooDeep;
                    }
                }
                b',' => values += 1,
                b':' => keys += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        let ends = offset + 1 == line.len();
                        return if ends {
                            Self::Object { values, keys }
                        } else {
                            Self::Trailing
                        };
                    }
                }
                _ => {}
            }
        }
        Self::Incomplete
    }
}

/// Skips to the end of a string; `false` if the string has no end.
fn skip_string<'a>(bytes: &mut impl Iterator<Item = (usize, &'a u8)>) -> bool {
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_classified_by_their_brackets() {
        let deep = "[".repeat(128);
        for (line, expected) in [
            (" \r", LineClass::Blank),
            (
                r#" {"a": [1, 2], "b": "x}\",["} "#,
                LineClass::Object { values: 4, keys: 2 },
            ),
            ("{}", LineClass::Object { values: 1, keys: 0 }),
            (
                r#"{"a:b": {"c": ":"}}"#,
                LineClass::Object { values: 2, keys: 2 },
            ),
            ("[1]", LineClass::NotAnObject),
            ("hello", LineClass::NotAnObject),
            (r#"{"a": 1"#, LineClass::Incomplete),
            (r#"{"a": "1}"#, LineClass::Incomplete),
            (r#"{"a": 1} {"#, LineClass::Trailing),
            (&format!(r#"{{"a": {deep}"#), LineClass::TooDeep),
        ] {
            assert_eq!(LineClass::classify(line.as_bytes()), expected, "{line}");
        }
    }
}
