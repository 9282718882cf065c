//! The shape of a line of JSON, seen in one pass without parsing: one balanced object, how many
//! values, how deep.

/// Deeper nesting is refused, as by `serde_json`.
pub(super) const MAX_DEPTH: usize = 128;

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineClass {
    /// Nothing but space.
    Blank,
    /// One object whose brackets match in number; the parser sees to the rest.
    Object {
        /// At least as many as there are values and keyed fields in it.
        values: u64,
        /// The keys of it and of the objects in it, each as often as it stands there.
        keys: u64,
    },
    /// It ends before the object does.
    Incomplete,
    /// Something follows the object.
    Trailing,
    /// It begins with something else.
    NotAnObject,
    /// Nested beyond [`MAX_DEPTH`].
    TooDeep,
}

impl LineClass {
    /// Looks at a line.
    pub(super) fn of(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        match line.first() {
            None => return Self::Blank,
            Some(b'{') => {}
            Some(_) => return Self::NotAnObject,
        }
        let (mut depth, mut values, mut keys) = (0, 0, 0);
        let mut bytes = line.iter().enumerate();
        while let Some((place, byte)) = bytes.next() {
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
                        let ends = place + 1 == line.len();
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

/// Goes past the end of a string; `false` where it has none.
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
    fn a_line_is_one_object_or_why_not() {
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
            assert_eq!(LineClass::of(line.as_bytes()), expected, "{line}");
        }
    }
}
