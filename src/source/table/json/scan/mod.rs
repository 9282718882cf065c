//! Scans a line that holds one JSON object, strictly by RFC 8259, without building its values.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::text_excerpt::shorten;

/// Maximum depth of nesting.
pub(crate) const MAX_DEPTH: usize = 128;

/// Receives the parts of an object in their order.
pub(crate) trait JsonEvents {
    /// An object begins.
    fn begin_object(&mut self) {}
    /// The key of the next value.
    fn key(&mut self, _key: &str) {}
    /// A list begins.
    fn begin_list(&mut self) {}
    /// The current object or list ends.
    fn end(&mut self) {}
    /// A string.
    fn string(&mut self) {}
    /// A number as written.
    fn number(&mut self, _text: &str) {}
    /// `true` or `false`.
    fn boolean(&mut self) {}
    /// `null`.
    fn null(&mut self) {}
}

impl JsonEvents for () {}

/// The size of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ObjectSize {
    /// The number of its values, including nested objects and lists.
    pub(crate) values: u64,
    /// The number of its keys and of those of nested objects.
    pub(crate) keys: u64,
}

/// Scans a line; `None` if it is blank.
///
/// # Errors
/// A sentence that states why the line is not one JSON object.
pub(in crate::source) fn scan_line(
    line: &[u8],
    events: &mut impl JsonEvents,
) -> Result<Option<ObjectSize>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the line is not valid UTF-8".to_owned())?;
    let mut scanner = Scanner {
        text,
        position: 0,
        size: ObjectSize::default(),
        hashes: Vec::new(),
    };
    scanner.skip_space();
    match scanner.peek() {
        None => return Ok(None),
        Some(b'{') => scanner.value(0, events)?,
        Some(_) => return Err("the line is not a JSON object".to_owned()),
    }
    scanner.skip_space();
    match scanner.peek() {
        None => Ok(Some(scanner.size)),
        Some(_) => {
            Err("the line continues after the object; expected one object per line".to_owned())
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
    size: ObjectSize,
    /// The hashes of the keys of the objects around the current position.
    hashes: Vec<u64>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.position += 1;
        }
    }

    /// Skips `byte`; `false` if another byte or the end follows.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.position += usize::from(is_next);
        is_next
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.text[self.position..].chars().next() {
            Some(found) => format!(
                "the line is not valid JSON: {found:?} at byte {}; expected {expected}",
                self.position
            ),
            None => "the line ends inside an object, a list or a string".to_owned(),
        }
    }

    fn value(&mut self, depth: usize, events: &mut impl JsonEvents) -> Result<(), String> {
        self.size.values += 1;
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(format!(
                "values are nested more than {MAX_DEPTH} levels deep"
            )),
            Some(b'{') => self.object(depth, events),
            Some(b'[') => self.list(depth, events),
            Some(b'"') => {
                self.string()?;
                events.string();
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                events.number(self.number()?);
                Ok(())
            }
            _ => self.literal(events),
        }
    }

    fn object(&mut self, depth: usize, events: &mut impl JsonEvents) -> Result<(), String> {
        let first_hash = self.hashes.len();
        self.position += 1;
        events.begin_object();
        self.skip_space();
        if !self.skip(b'}') {
            loop {
                self.skip_space();
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a key"));
                }
                self.key(events)?;
                self.skip_space();
                if !self.skip(b':') {
                    return Err(self.unexpected("`:`"));
                }
                self.skip_space();
                self.value(depth + 1, events)?;
                self.skip_space();
                if self.skip(b'}') {
                    break;
                }
                if !self.skip(b',') {
                    return Err(self.unexpected("`,` or `}`"));
                }
            }
        }
        events.end();
        self.check_keys(first_hash)
    }

    fn list(&mut self, depth: usize, events: &mut impl JsonEvents) -> Result<(), String> {
        self.position += 1;
        events.begin_list();
        self.skip_space();
        if !self.skip(b']') {
            loop {
                self.skip_space();
                self.value(depth + 1, events)?;
                self.skip_space();
                if self.skip(b']') {
                    break;
                }
                if !self.skip(b',') {
                    return Err(self.unexpected("`,` or `]`"));
                }
            }
        }
        events.end();
        Ok(())
    }

    /// Checks that the keys of an object differ; a parser would keep only one of the values.
    fn check_keys(&mut self, first_hash: usize) -> Result<(), String> {
        let hashes = &mut self.hashes[first_hash..];
        hashes.sort_unstable();
        let is_repeated = hashes.windows(2).any(|pair| pair[0] == pair[1]);
        self.hashes.truncate(first_hash);
        if is_repeated {
            return Err("an object has a key more than once".to_owned());
        }
        Ok(())
    }

    fn key(&mut self, events: &mut impl JsonEvents) -> Result<(), String> {
        self.size.keys += 1;
        let quoted = self.string()?;
        let unescaped: String;
        let key = if quoted.contains('\\') {
            unescaped = serde_json::from_str(quoted)
                .map_err(|error| format!("invalid key {}: {error}", shorten(quoted)))?;
            &unescaped
        } else {
            &quoted[1..quoted.len() - 1]
        };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.hashes.push(hasher.finish());
        events.key(key);
        Ok(())
    }

    /// Skips a string and returns it with its quotes.
    fn string(&mut self) -> Result<&'a str, String> {
        let start = self.position;
        self.position += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(&self.text[start..self.position]);
                }
                Some(b'\\') => self.escape()?,
                Some(0..0x20) => return Err(self.unexpected("an escaped control character")),
                Some(_) => self.position += 1,
                None => return Err(self.unexpected("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        self.position += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 1,
            Some(b'u') => {
                self.position += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.unexpected("four hexadecimal digits"));
                    }
                    self.position += 1;
                }
            }
            _ => return Err(self.unexpected("an escape sequence")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str, String> {
        let start = self.position;
        self.skip(b'-');
        if !self.skip(b'0') {
            self.digits()?;
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            if !self.skip(b'+') {
                self.skip(b'-');
            }
            self.digits()?;
        }
        if self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            return Err(self.unexpected("the end of a number"));
        }
        Ok(&self.text[start..self.position])
    }

    fn digits(&mut self) -> Result<(), String> {
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        if self.position == start {
            return Err(self.unexpected("a digit"));
        }
        Ok(())
    }

    fn literal(&mut self, events: &mut impl JsonEvents) -> Result<(), String> {
        let rest = &self.text[self.position..];
        let literal = ["true", "false", "null"]
            .into_iter()
            .find(|literal| rest.starts_with(literal));
        let Some(literal) = literal else {
            return Err(self.unexpected("a value"));
        };
        self.position += literal.len();
        if literal == "null" {
            events.null();
        } else {
            events.boolean();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
