//! Unit tests of the module `onnx_metadata`.

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
    let entry = |key: &[u8], value: &[u8]| bytes(13, &[bytes(1, key), bytes(2, value)].concat());
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
