//! Small handmade files, right and wrong.

use super::writer::{Writer, array};
use super::*;

fn parse(writer: &Writer) -> Result<Gguf, ModelError> {
    parse_bytes(writer.bytes())
}

fn parse_bytes(bytes: Vec<u8>) -> Result<Gguf, ModelError> {
    Gguf::parse(Arc::new(ModelBytes::from_vec("test.gguf", bytes)))
}

#[test]
fn reads_every_kind_of_value() {
    let nested = array(9, &[array(4, &[7_u32.to_le_bytes().to_vec()])]);
    let file = parse(
        &Writer::new()
            .raw("u8", 0, &[200])
            .raw("i8", 1, &[0xff])
            .raw("u16", 2, &40_000_u16.to_le_bytes())
            .raw("i16", 3, &(-3_i16).to_le_bytes())
            .u32("u32", 4_000_000_000)
            .raw("i32", 5, &(-5_i32).to_le_bytes())
            .raw("f32", 6, &1.5_f32.to_le_bytes())
            .bool("bool", true)
            .str("str", "grüße")
            .raw("u64", 10, &u64::MAX.to_le_bytes())
            .raw("i64", 11, &(-9_i64).to_le_bytes())
            .raw("f64", 12, &2.5_f64.to_le_bytes())
            .strs("strs", &["a", "", "bc"])
            .f32s("f32s", &[0.5, 2.0])
            .raw("nested", 9, &nested),
    )
    .unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.u64("u8").unwrap(), Some(200));
    assert_eq!(metadata.f64("i8").unwrap(), Some(-1.0));
    assert_eq!(metadata.u64("u16").unwrap(), Some(40_000));
    assert_eq!(metadata.f64("i16").unwrap(), Some(-3.0));
    assert_eq!(metadata.u64("u32").unwrap(), Some(4_000_000_000));
    assert!(metadata.u64("i32").is_err(), "negative");
    assert_eq!(metadata.f64("f32").unwrap(), Some(1.5));
    assert_eq!(metadata.bool("bool").unwrap(), Some(true));
    assert_eq!(metadata.str("str").unwrap(), Some("grüße"));
    assert_eq!(metadata.u64("u64").unwrap(), Some(u64::MAX));
    assert_eq!(metadata.f64("i64").unwrap(), Some(-9.0));
    assert_eq!(metadata.f64("f64").unwrap(), Some(2.5));
    let strings: Vec<_> = metadata.array("strs").unwrap().unwrap().strings().unwrap().collect();
    assert_eq!(strings, [b"a".as_slice(), b"", b"bc"]);
    let floats: Vec<_> = metadata.array("f32s").unwrap().unwrap().numbers().unwrap().collect();
    assert!(matches!(floats[..], [GgufValue::F32(0.5), GgufValue::F32(2.0)]));
    let outer = metadata.array("nested").unwrap().unwrap();
    let inner = outer.arrays().unwrap().next().unwrap();
    assert_eq!(inner.numbers().unwrap().next().unwrap().as_u64(), Some(7));
    assert_eq!(metadata.str("absent").unwrap(), None);
    assert_eq!(metadata.keys().count(), 15);
    let error = metadata.str("u8").unwrap_err().to_string();
    assert_eq!(error, "test.gguf: u8: expected a string, found a u8");
}

#[test]
fn reverses_dimensions_and_finds_bytes() {
    let data: Vec<u8> = (0..104).collect();
    let file = parse(
        &Writer::new()
            .tensor("a", &[3, 2], 0, 0)
            .tensor("b", &[32, 2], 2, 32)
            .tensor("odd", &[5], 77, 96)
            .data(&data),
    )
    .unwrap();
    let a = file.tensor("a").unwrap();
    assert_eq!(a.dims, [2, 3]);
    assert_eq!(file.bytes(a), &data[..24]);
    let b = file.tensor("b").unwrap();
    assert_eq!(file.bytes(b), &data[32..68]);
    assert_eq!(file.bytes(file.tensor("odd").unwrap()), &data[96..]);
    assert!(file.tensor("c").is_none());
}

#[test]
fn accepts_version_2_and_another_alignment() {
    let mut writer =
        Writer::new().u32("general.alignment", 8).tensor("a", &[1], 0, 8).data(&[0; 64]);
    writer.version = 2;
    assert!(parse(&writer).is_ok());
}

#[test]
fn refuses_files_that_contradict_themselves() {
    let base = Writer::new();
    let f32 = |offset| base.clone().tensor("a", &[8], 0, offset);
    let mut big_endian = base.clone();
    big_endian.version = 3_u32.swap_bytes();
    let mut old = base.clone();
    old.version = 1;
    #[rustfmt::skip]
    let cases = [
        ("big-endian",      big_endian,                                       "big-endian"),
        ("version 1",       old,                                              "expected 2 or 3"),
        ("same key twice",  base.clone().u32("k", 1).u32("k", 2),             "occurs once"),
        ("bool of 2",       base.clone().raw("k", 7, &[2]),                   "0 or 1"),
        ("kind 13",         base.clone().raw("k", 13, &[0; 8]),               "value kind"),
        ("string not utf8", base.clone().raw("k", 8, &writer::string(&[0xff])), "UTF-8"),
        ("long array",      base.clone().raw("k", 9, &[5, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]), "count of at most"),
        ("alignment 3",     base.clone().u32("general.alignment", 3),         "power of two"),
        ("alignment 2^31",  base.clone().u32("general.alignment", 1 << 31),   "power of two"),
        ("same name twice", f32(0).tensor("a", &[8], 0, 32).data(&[0; 64]),   "occurs once"),
        ("overlap",         f32(0).tensor("b", &[8], 0, 0).data(&[0; 64]),    "overlap"),
        ("inside another",  base.clone().tensor("a", &[16], 0, 0).tensor("b", &[1], 0, 32).data(&[0; 64]), "overlap"),
        ("past the end",    f32(32).data(&[0; 32]),                           "inside the file"),
        ("offset overflow", f32(u64::MAX - 31).data(&[0; 32]),                "inside the file"),
        ("not aligned",     f32(4).data(&[0; 64]),                            "multiple of 32"),
        ("unknown outside", base.clone().tensor("a", &[1], 99, 1 << 40),      "inside the file"),
        ("dims overflow",   base.clone().tensor("a", &[1 << 40, 1 << 40], 0, 0), "whole F32 blocks"),
        ("half a block",    base.clone().tensor("a", &[33], 2, 0).data(&[0; 64]), "whole Q4_0 blocks"),
        ("zero rows",       base.clone().tensor("a", &[4, 0], 0, 0),          "at least 1"),
        ("five dimensions", base.clone().tensor("a", &[1; 5], 0, 0),          "at most 4"),
    ];
    for (name, writer, expected) in cases {
        let error = parse(&writer).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn refuses_absurd_counts_and_nesting() {
    let mut bytes = Writer::new().u32("k", 1).bytes();
    for at in [8, 16] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].fill(0xff);
        let error = parse_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains("a count that fits"), "{error}");
    }
    let mut deep = array(0, &[vec![1]]);
    for _ in 0..6 {
        deep = array(9, &[deep]);
    }
    bytes = Writer::new().raw("k", 9, &deep).bytes();
    assert!(parse_bytes(bytes).unwrap_err().to_string().contains("nested"));
    for text in ["", "GGU", "GGML\u{3}", "PK"] {
        assert!(parse_bytes(text.into()).is_err());
    }
}
