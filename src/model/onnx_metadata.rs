//! Reads the fields of an ONNX file that ONNX Runtime does not report: versions, operator sets, and
//! files with external data.
//!
//! Field numbers are those of `onnx.proto` (IR version 13). Bytes that the parser of ONNX Runtime
//! might interpret differently are refused, so that every file with external data is found.

use std::collections::BTreeSet;

/// The metadata of an ONNX file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxMetadata {
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
mod tests {
    use super::*;

    /// A field with a length-delimited value.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [
            &[number << 3 | 2, u8::try_from(value.len()).expect("short")],
            value,
        ]
        .concat()
    }

    /// The tag of a field.
    fn tag(number: u64, wire: u8) -> Vec<u8> {
        let mut key = number << 3 | u64::from(wire);
        let mut tag = Vec::new();
        while key > 0x7f {
            tag.push(u8::try_from(key & 0x7f).expect("7 bits") | 0x80);
            key >>= 7;
        }
        tag.push(u8::try_from(key).expect("7 bits"));
        tag
    }

    fn tensor_in(file: &[u8]) -> Vec<u8> {
        let entry =
            |key: &[u8], value: &[u8]| bytes(13, &[bytes(1, key), bytes(2, value)].concat());
        [entry(b"location", file), entry(b"offset", b"0")].concat()
    }

    fn external(model: &[u8]) -> Vec<String> {
        OnnxMetadata::read(model)
            .expect("sound")
            .external
            .into_iter()
            .collect()
    }

    #[test]
    fn metadata_and_external_files_of_subgraphs_are_found() {
        let node = bytes(
            1,
            &bytes(5, &bytes(6, &bytes(5, &tensor_in(b"weights.bin")))),
        );
        let opset = bytes(8, &[16, 17]);
        let model = [
            vec![8, 10],
            bytes(2, b"make"),
            bytes(3, b"1.0"),
            bytes(7, &node),
            opset,
        ]
        .concat();
        let header = OnnxMetadata::read(&model).expect("sound");
        assert_eq!(header.ir_version, 10);
        assert_eq!(header.producer, "make 1.0");
        assert_eq!(header.opsets, [(String::new(), 17)]);
        assert_eq!(header.external.iter().collect::<Vec<_>>(), ["weights.bin"]);
    }

    #[test]
    fn unknown_fields_do_not_hide_external_files() {
        let graph = bytes(7, &bytes(5, &tensor_in(b"w.bin")));
        let group = |inside: &[u8]| [tag(1000, 3), inside.to_vec(), tag(1000, 4)].concat();
        let unknown = [
            group(&[]),
            group(
                &[
                    tag(1, 0),
                    vec![0xff, 0x01],
                    tag(2, 1),
                    vec![0; 8],
                    tag(3, 5),
                    vec![0; 4],
                ]
                .concat(),
            ),
            group(&group(&bytes(9, b"inner"))),
            [tag(2000, 0), vec![7]].concat(),
            [tag(2000, 1), vec![0; 8]].concat(),
            [tag(2000, 5), vec![0; 4]].concat(),
            [tag(2000, 2), vec![2, 0, 0]].concat(),
            // The number of the graph as a group: an unknown field, and not a graph.
            [tag(7, 3), tag(7, 4)].concat(),
        ];
        for field in &unknown {
            for model in [
                [field.clone(), graph.clone()].concat(),
                [graph.clone(), field.clone()].concat(),
            ] {
                assert_eq!(external(&model), ["w.bin"], "{field:x?}");
            }
            let within = bytes(
                7,
                &[
                    field.clone(),
                    bytes(5, &[field.clone(), tensor_in(b"v.bin")].concat()),
                ]
                .concat(),
            );
            assert_eq!(external(&within), ["v.bin"], "{field:x?}");
        }
    }

    #[test]
    fn all_parts_of_a_merged_message_are_searched() {
        let part = |file: &[u8]| bytes(7, &bytes(5, &tensor_in(file)));
        assert_eq!(external(&[part(b"a"), part(b"b")].concat()), ["a", "b"]);
        let entry = [
            bytes(1, b"offset"),
            bytes(1, b"location"),
            bytes(2, b"first"),
            bytes(2, b"last"),
        ]
        .concat();
        assert_eq!(
            external(&bytes(7, &bytes(5, &bytes(13, &entry)))),
            ["first", "last"]
        );
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let nested = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
            [tag(1000, 3), inner, tag(1000, 4)].concat()
        });
        let endless = [tag(1000, 3), tag(1000, 3), tag(1000, 4)].concat();
        let crossed = [tag(1000, 3), tag(1001, 4)].concat();
        let wide_key = [0xba, 0x80, 0x80, 0x80, 0x10, 0x00];
        let malformed: [(&[u8], &str); 9] = [
            (&[0xff_u8; 11], "a varint has more than 64 bits"),
            (b"\x3a\xff\xff\xff\x7f", CUT_SHORT),
            (b"hello", "a group ends without a start"),
            (b"\x00\x00", "a field has an invalid number"),
            (b"\x3c", "a group ends without a start"),
            (&nested, TOO_DEEP),
            (&endless, CUT_SHORT),
            (
                &crossed,
                "a group ends with another field number than it starts with",
            ),
            (&wide_key, "a field has an invalid number"),
        ];
        for (bytes, error) in malformed {
            assert_eq!(OnnxMetadata::read(bytes), Err(error), "{bytes:x?}");
        }
        assert_eq!(OnnxMetadata::read(b""), Ok(OnnxMetadata::default()));
    }

    #[test]
    fn messages_nested_too_deep_are_refused() {
        // A node in a graph in an attribute in a node ...
        let deep = (0..201).fold(Vec::new(), |inner: Vec<u8>, level| {
            let number = [6, 5, 1][level % 3];
            let mut len = tag(
                u64::try_from(inner.len()).expect("short") >> 3,
                u8::try_from(inner.len() & 7).expect("3 bits"),
            );
            let mut field = vec![number << 3 | 2];
            field.append(&mut len);
            [field, inner].concat()
        });
        let len = tag(
            u64::try_from(deep.len()).expect("short") >> 3,
            u8::try_from(deep.len() & 7).expect("3 bits"),
        );
        let model = [vec![7 << 3 | 2], len, deep].concat();
        assert_eq!(OnnxMetadata::read(&model), Err(TOO_DEEP));
    }
}
