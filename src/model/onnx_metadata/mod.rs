//! Reads the fields of an ONNX file that ONNX Runtime does not report: versions, operator sets, and
//! files with external data.
//!
//! Field numbers are those of `onnx.proto` (IR version 13). Bytes that the parser of ONNX Runtime
//! might interpret differently are refused, so that every file with external data is found.

use std::collections::BTreeSet;

/// The metadata of an ONNX file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnnxMetadata {
    /// The version of the file format (IR version).
    pub ir_version: u64,
    /// The name and version of the program that wrote the file.
    pub producer: String,
    /// Operator sets: domain (empty for the ONNX domain) and version.
    pub opsets: Vec<(String, u64)>,
    /// The files with external data, by the paths that the ONNX file contains.
    pub external: BTreeSet<String>,
}

impl OnnxMetadata {
    /// Reads a serialized `ModelProto`.
    ///
    /// # Errors
    /// When the bytes are malformed. The text is a phrase.
    pub fn read(model: &[u8]) -> Result<Self, &'static str> {
        let mut header = Self::default();
        let mut version = String::new();
        for field in ProtoFields(model) {
            match field? {
                (1, ProtoField::Varint(ir_version)) => header.ir_version = ir_version,
                (2, ProtoField::Bytes(name)) => header.producer = text(name),
                (3, ProtoField::Bytes(number)) => version = text(number),
                (8, ProtoField::Bytes(opset)) => header.opsets.push(read_opset(opset)?),
                _ => {}
            }
        }
        header.producer = format!("{} {version}", header.producer).trim().to_owned();
        find_external(model, OnnxMessage::Model, MAX_DEPTH, &mut header.external)?;
        Ok(header)
    }
}

/// Reads the domain and the version of an entry of operator sets.
pub(super) fn read_opset(opset: &[u8]) -> Result<(String, u64), &'static str> {
    let (mut domain, mut version) = (String::new(), 0);
    for field in ProtoFields(opset) {
        match field? {
            (1, ProtoField::Bytes(name)) => domain = text(name),
            (2, ProtoField::Varint(number)) => version = number,
            _ => {}
        }
    }
    Ok((domain, version))
}

/// The maximum nesting of messages and groups, which is also the limit of protobuf's own parser.
/// Messages are nested in subgraphs of loops and branches.
pub(super) const MAX_DEPTH: usize = 100;

/// The messages on the way from a model to its tensors.
#[derive(Clone, Copy)]
enum OnnxMessage {
    Model,
    Graph,
    Function,
    Training,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl OnnxMessage {
    /// The message that a field of this one holds, if it can lead to tensors.
    fn inside(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => {
                Some(Self::Graph)
            }
            (Self::Model, 20) => Some(Self::Training),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Node, 5) | (Self::Function, 11) => Some(Self::Attribute),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::Sparse),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => {
                Some(Self::Tensor)
            }
            _ => None,
        }
    }
}

/// Finds the files with external data. A message field that occurs several times is merged by
/// protobuf, so each occurrence is searched.
fn find_external(
    bytes: &[u8],
    message: OnnxMessage,
    depth: usize,
    found: &mut BTreeSet<String>,
) -> Result<(), &'static str> {
    let inner = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    for field in ProtoFields(bytes) {
        let (number, ProtoField::Bytes(field)) = field? else {
            continue;
        };
        if let (OnnxMessage::Tensor, 13) = (message, number) {
            find_locations(field, found)?;
        } else if let Some(inside) = message.inside(number) {
            find_external(field, inside, inner, found)?;
        }
    }
    Ok(())
}

/// Adds the value of the key `location`, which is the path of the file, in an entry of a tensor's
/// external data. If a key or a value occurs several times, parsers differ in the one that they
/// use, so all values are added.
fn find_locations(entry: &[u8], found: &mut BTreeSet<String>) -> Result<(), &'static str> {
    let (mut is_location, mut values) = (false, Vec::new());
    for field in ProtoFields(entry) {
        match field? {
            (1, ProtoField::Bytes(key)) => is_location |= key == b"location",
            (2, ProtoField::Bytes(value)) => values.push(value),
            _ => {}
        }
    }
    if is_location {
        found.extend(values.into_iter().map(text));
    }
    Ok(())
}

const CUT_SHORT: &str = "a field extends beyond the end of the file or of its message";
pub(super) const TOO_DEEP: &str = "messages are nested more than 100 levels deep";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An iterator over the fields of a message in the protobuf wire format: number and value. It ends
/// at the end of the message or after an error.
pub(super) struct ProtoFields<'a>(pub &'a [u8]);

/// The value of a field.
pub(super) enum ProtoField<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Iterator for ProtoFields<'a> {
    type Item = Result<(u64, ProtoField<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field(MAX_DEPTH);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> ProtoFields<'a> {
    /// Reads the next number of a packed list; `None` at its end.
    pub(super) fn next_varint(&mut self) -> Option<Result<u64, &'static str>> {
        (!self.0.is_empty()).then(|| self.varint())
    }

    fn field(&mut self, depth: usize) -> Result<(u64, ProtoField<'a>), &'static str> {
        let (number, wire) = self.key()?;
        let field = match wire {
            0 => ProtoField::Varint(self.varint()?),
            1 => self.take(8).map(|_| ProtoField::Other)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| CUT_SHORT)?;
                ProtoField::Bytes(self.take(len)?)
            }
            // No message of ONNX has groups, so a group is an unknown field and is skipped.
            3 => {
                self.skip_group(number, depth)?;
                ProtoField::Other
            }
            4 => return Err("a group ends without a start"),
            5 => self.take(4).map(|_| ProtoField::Other)?,
            _ => return Err("a field has an unknown wire type"),
        };
        Ok((number, field))
    }

    /// Skips to the end of the group with this number.
    fn skip_group(&mut self, number: u64, depth: usize) -> Result<(), &'static str> {
        let inner = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        loop {
            let before = self.0;
            match self.key()? {
                (end, 4) if end == number => return Ok(()),
                (_, 4) => return Err("a group ends with another field number than it starts with"),
                _ => {
                    self.0 = before;
                    self.field(inner)?;
                }
            }
        }
    }

    /// Reads the number and the wire type of a field. A key of more than 32 bits is refused, since
    /// some parsers truncate it and others do not.
    fn key(&mut self) -> Result<(u64, u64), &'static str> {
        match self.varint()? {
            key if key > u64::from(u32::MAX) || key >> 3 == 0 => {
                Err("a field has an invalid number")
            }
            key => Ok((key >> 3, key & 7)),
        }
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(CUT_SHORT)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a varint has more than 64 bits")
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
