//! The descriptions that kinds give each other, as bytes.

use super::{wire_enum, wire_struct};
use crate::error::Error;
use crate::kinds::SemanticId;
use crate::kinds::backend::{
    Bucket, DomainDesc, DomainId, Layout, LayoutId, MemoryMap, RawForm, StatePlace, Support,
    WeightDesc, WeightPlace,
};
use crate::kinds::kv_cache::{AffineStorage, CodeScales, Patches, PoolLimits, PoolSpec, Storage};
use crate::kinds::model_source::ModelEntry;
use crate::kinds::quantizer::{FormatDesc, Lowering, Scales};
use crate::kinds::rotary_embedding::{Pairing, Rotation};

wire_enum!(Error, "error",
    0 => Config { key: key, expected: expected, found: found },
    1 => ShapeMismatch { what: what, expected: expected, found: found },
    2 => Malformed { what: what, expected: expected, found: found },
    3 => Unsupported { what: what, missing: missing },
    4 => Denied { plugin: plugin, service: service, wanted: wanted, grant: grant },
    5 => NoSpace { what: what, needed: needed, free: free },
    6 => MissingWeight { name: name },
    7 => NotFound { kind: kind, name: name, known: known },
    8 => Outside { what: what, message: message },
);

wire_struct!(SemanticId { 0 });

wire_struct!(FormatDesc { name, block_len, block_bytes, semantic_id });
wire_enum!(Lowering, "lowering",
    0 => Affine { bits: bits, group: group, zero_point: zero, has_min: min, scales: scales },
    1 => Table { bits: bits, table: table, group: group },
    2 => MiniFloat { exponent: exponent, mantissa: mantissa },
    3 => Opaque {},
);
wire_enum!(Scales, "scales", 0 => F32 {}, 1 => F16 {}, 2 => Product { groups: groups });

wire_struct!(Rotation { inv_freq, pairing, attention_factor });
wire_enum!(Pairing, "pairing", 0 => HalfSplit {}, 1 => Interleaved {});

wire_struct!(DomainId { 0 });
wire_struct!(DomainDesc { id, name, size_bytes });
wire_enum!(Support, "support", 0 => Native {}, 1 => Expand {}, 2 => No { 0: reason }, 3 => Skip {});
wire_struct!(WeightDesc { name, format, rows, cols });
wire_struct!(LayoutId { 0 });
wire_enum!(RawForm, "form", 0 => Affine {}, 1 => Floats {});
wire_struct!(Layout { id, row_block, block_bytes, wants });
wire_struct!(Bucket { sizes });
wire_struct!(WeightPlace { desc, lowering, layout });
wire_struct!(StatePlace { storage, offsets, num_blocks });
wire_struct!(MemoryMap { weights, states, block_size });

wire_struct!(PoolLimits { num_seqs_max, tokens_per_seq_max, size_bytes_max });
wire_struct!(PoolSpec { block_size, num_blocks, blocks_per_seq_max, storage, semantic_id });
wire_enum!(Storage, "storage", 0 => Plain { 0: dtype }, 1 => Affine { 0: affine });
wire_struct!(AffineStorage { scales, patches });
wire_enum!(CodeScales, "scales of codes", 0 => PerVector {}, 1 => PerChannel { 0: scales });
wire_struct!(Patches { per_block, error_min });

wire_struct!(ModelEntry { name, description, size_bytes });
