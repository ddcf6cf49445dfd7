//! Bytes: what is written reads back, and whatever comes is read without a panic.

use plugin_api::kinds::backend::{
    Bucket, DomainDesc, DomainId, Layout, LayoutId, MemoryMap, RawForm, StatePlace, Support,
    WeightDesc, WeightPlace,
};
use plugin_api::kinds::kv_cache::{AffineStorage, CodeScales, Patches, Storage};
use plugin_api::plan::{Attr, Word};
use plugin_api::prelude::*;
use plugin_api::wire::{Wire, from_bytes, to_bytes};
use proptest::prelude::*;

/// Reads every type from the same bytes; what can be read is written as it was, if it has one form.
fn read_all(bytes: &[u8]) {
    macro_rules! read {
        ($($type:ty),* $(,)?) => {
            $(if let Ok(value) = from_bytes::<$type>(bytes) {
                let again = from_bytes::<$type>(&to_bytes(&value));
                assert_eq!(to_bytes(&again.unwrap()), to_bytes(&value), stringify!($type));
            })*
        };
    }
    read!(
        u8,
        u32,
        i32,
        u64,
        i64,
        f32,
        f64,
        usize,
        bool,
        String,
        Config,
        Value,
        Error,
        SemanticId,
        FormatDesc,
        Lowering,
        Rotation,
        Pairing,
        DomainDesc,
        Support,
        WeightDesc,
        Layout,
        RawForm,
        Bucket,
        WeightPlace,
        StatePlace,
        MemoryMap,
        PoolLimits,
        PoolSpec,
        ModelEntry,
        Val,
        Word,
        DType,
        Spec,
        Dim,
        StateSpec,
        Per,
        Part,
        Attrs,
        Attr,
    );
    read!(
        Vec<Config>,
        Vec<Vec<Vec<Vec<u8>>>>,
        Vec<(Val, Spec)>,
        Option<ModelEntry>,
        (FormatDesc, Lowering),
        Vec<DomainDesc>,
        Vec<StateSpec>,
    );
    let _ = Plan::from_bytes(bytes);
}

fn round_trip<T: Wire + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = to_bytes(value);
    assert_eq!(&from_bytes::<T>(&bytes).unwrap(), value);
    for len in 0..bytes.len() {
        assert!(from_bytes::<T>(&bytes[..len]).is_err(), "{len} bytes of {value:?}");
    }
    let mut more = bytes;
    more.push(0);
    assert!(from_bytes::<T>(&more).is_err(), "more than {value:?}");
}

fn errors(text: &str, number: u64) -> Vec<Error> {
    let owned = || text.to_owned();
    let (plugin, wanted, grant) = (owned(), owned(), owned());
    vec![
        Config::at(text).wrong(text, text, None),
        Error::shape(text, number, text),
        Error::malformed(text, number, text),
        Error::unsupported(text, number),
        Error::Denied { plugin, service: owned().into(), wanted, grant },
        Error::NoSpace { what: owned().into(), needed: number, free: 1 },
        Error::MissingWeight { name: owned() },
        Error::NotFound { kind: owned(), name: owned(), known: owned() },
        Error::outside(text, number),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    /// Small numbers pass for counts and choices more often.
    #[test]
    fn likely_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0_u8..6, 0..120)) {
        read_all(&bytes);
    }

    #[test]
    fn what_is_written_reads_back(
        text in "\\PC{0,12}",
        number in any::<u64>(),
        floats in proptest::collection::vec(-1e9_f32..1e9, 0..9),
        count in 0_usize..1_000_000,
        flag in any::<bool>(),
    ) {
        errors(&text, number).iter().for_each(round_trip);
        let id = SemanticId::new(&text);
        let format = FormatDesc {
            name: text.clone().into(), block_len: count, block_bytes: count + 1, semantic_id: id,
        };
        let (bits, group) = (7, count);
        let affine = |scales| Lowering::Affine { bits, group, zero_point: 9, has_min: flag, scales };
        let affine = [Scales::F32, Scales::F16, Scales::Product { groups: count }].map(affine);
        round_trip(&(format, affine[0].clone()));
        affine.iter().for_each(round_trip);
        round_trip(&Lowering::Table { bits, table: floats.clone(), group });
        round_trip(&Lowering::Opaque);
        let entry = ModelEntry {
            name: text.clone(), description: text.clone(), size_bytes: flag.then_some(number),
        };
        round_trip(&Some(entry));
        let domain =
            DomainDesc { id: DomainId(bits), name: text.clone(), size_bytes: flag.then_some(1) };
        round_trip(&vec![domain]);
        round_trip(&Support::No(text.clone()));
        round_trip(&Support::Skip);
        let desc = WeightDesc { name: text.clone(), format: text.clone(), rows: count, cols: 2 };
        let (id, wants) = (LayoutId(text.clone()), RawForm::Affine);
        let layout = Layout { id, row_block: count, block_bytes: 4, wants };
        let scales = CodeScales::PerChannel(vec![floats.clone(), Vec::new()]);
        let patches = Some(Patches { per_block: count, error_min: 0.5 });
        for scales in [CodeScales::PerVector, scales] {
            round_trip(&Storage::Affine(AffineStorage { scales, patches }));
        }
        let (storage, offsets) = (Storage::Plain(DType::F16), vec![count, 1]);
        let place = StatePlace { storage, offsets, num_blocks: count };
        let weights = vec![WeightPlace { desc, lowering: affine[2].clone(), layout }];
        round_trip(&MemoryMap { weights, states: vec![place], block_size: count });
        round_trip(&Bucket { sizes: vec![(Word::of("tokens"), count)] });
        let inner = Config::at(&text).with("x", f64::from(bits)).with("flag", flag);
        let list = vec![Value::Text(text.clone()), Value::Table(inner.clone())];
        round_trip(&inner.with("list", list).with(&text, "key"));
        let rotation =
            Rotation { inv_freq: floats, pairing: Pairing::HalfSplit, attention_factor: 0.5 };
        round_trip(&rotation);
    }
}
