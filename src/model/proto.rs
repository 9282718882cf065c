//! The few fields of an ONNX file that ONNX Runtime does not tell: versions, opsets, files with external data.
//!
//! Field numbers are those of `onnx.proto` (IR version 13). What is malformed is skipped: ONNX Runtime reports it.

use std::collections::BTreeSet;

/// What an ONNX file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Version of the file format.
    pub ir_version: u64,
    /// The program that wrote it, and that program's version.
    pub producer: String,
    /// Operator sets: domain (empty for ONNX's own) and version.
    pub opsets: Vec<(String, u64)>,
    /// Files beside it that hold weights, as the file names them.
    pub external: BTreeSet<String>,
}

impl Header {
    /// Reads a serialised `ModelProto`.
    pub fn read(model: &[u8]) -> Self {
        let mut header = Self::default();
        let mut version = String::new();
        for (number, field) in Fields(model) {
            match (number, field) {
                (1, Field::Varint(version)) => header.ir_version = version,
                (2, Field::Bytes(name)) => header.producer = text(name),
                (3, Field::Bytes(number)) => version = text(number),
                (8, Field::Bytes(opset)) => header.opsets.push(read_opset(opset)),
                _ => {}
            }
        }
        header.producer = format!("{} {version}", header.producer).trim().to_owned();
        find_external(model, Message::Model, MAX_DEPTH, &mut header.external);
        header
    }
}

fn read_opset(opset: &[u8]) -> (String, u64) {
    Fields(opset).fold((String::new(), 0), |(domain, version), field| match field {
        (1, Field::Bytes(name)) => (text(name), version),
        (2, Field::Varint(version)) => (domain, version),
        _ => (domain, version),
    })
}

/// Subgraphs of loops and branches nest; a file made to overflow the stack nests deeper.
const MAX_DEPTH: usize = 100;

/// The messages on the way from a model to its tensors.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// The message that a field of this one holds, if it can lead to tensors.
    fn inside(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::Sparse),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Some(Self::Tensor),
            _ => None,
        }
    }
}

fn find_external(bytes: &[u8], message: Message, depth: usize, found: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    for (number, field) in Fields(bytes) {
        let Field::Bytes(field) = field else { continue };
        if let (Message::Tensor, 13) = (message, number) {
            found.extend(read_location(field));
        } else if let Some(inside) = message.inside(number) {
            find_external(field, inside, depth - 1, found);
        }
    }
}

/// A tensor's external data is a list of keys and values, of which `location` is the file.
fn read_location(entry: &[u8]) -> Option<String> {
    let (mut key, mut value) = (&b""[..], None);
    for field in Fields(entry) {
        match field {
            (1, Field::Bytes(bytes)) => key = bytes,
            (2, Field::Bytes(bytes)) => value = Some(bytes),
            _ => {}
        }
    }
    value.filter(|_| key == b"location").map(text)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields of a message in the protobuf wire format: number and value, until the end or what is malformed.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Field::Other)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).expect("short")], value].concat()
    }

    #[test]
    fn the_header_and_the_external_files_of_subgraphs_are_found() {
        let entry = |key: &[u8], value: &[u8]| bytes(13, &[bytes(1, key), bytes(2, value)].concat());
        let tensor = [entry(b"location", b"weights.bin"), entry(b"offset", b"0")].concat();
        let subgraph = bytes(5, &tensor);
        let node = bytes(1, &bytes(5, &bytes(6, &subgraph)));
        let opset = bytes(8, &[16, 17]);
        let model = [vec![8, 10], bytes(2, b"make"), bytes(3, b"1.0"), bytes(7, &node), opset].concat();
        let header = Header::read(&model);
        assert_eq!(header.ir_version, 10);
        assert_eq!(header.producer, "make 1.0");
        assert_eq!(header.opsets, [(String::new(), 17)]);
        assert_eq!(header.external.iter().collect::<Vec<_>>(), ["weights.bin"]);
    }

    #[test]
    fn bytes_that_are_no_onnx_are_read_as_nothing() {
        for hostile in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x3a\xff\xff\xff\x7f", b"hello"] {
            assert!(Header::read(hostile).external.is_empty());
        }
        let deep = (0..10_000).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut field = vec![0x0a];
            let mut len = inner.len();
            while len > 0x7f {
                field.push(u8::try_from(len & 0x7f).expect("7 bits") | 0x80);
                len >>= 7;
            }
            field.push(u8::try_from(len).expect("7 bits"));
            [field, inner].concat()
        });
        assert!(Header::read(&deep).external.is_empty());
    }
}
