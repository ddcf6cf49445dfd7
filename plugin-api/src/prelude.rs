//! What most plugins use: `use plugin_api::prelude::*;`.

pub use crate::config::{Config, Value};
pub use crate::error::{Error, Result};
pub use crate::events::{Flow, Phase, Subscriptions};
pub use crate::export_plugin;
pub use crate::host::Host;
pub use crate::kinds::adapter::Adapter;
pub use crate::kinds::compressor::{
    Channels, Chosen, Compressed, Compressor, Grid, Input, Matrix, Products,
};
pub use crate::kinds::curriculum::{Choice, Curriculum, SourceView};
pub use crate::kinds::decoding_strategy::{
    Action, Actions, DecodingStrategy, Eval, Evals, FinishReason, GroupId, Outcome, RequestView,
    SingleAnswer, Want,
};
pub use crate::kinds::encoder::Encoder;
pub use crate::kinds::feed_forward::FeedForward;
pub use crate::kinds::hook::Hook;
pub use crate::kinds::kv_cache::{
    AffineStorage, BlockCopy, BlockKey, CodeScales, KvCache, PageCodec, PagedCache, Pages, Patches,
    PoolLimits, PoolSpec, PoolUsage, PrefixCaching, SavedTables, SeqId, SeqTable, StateScales,
    Storage, TableShape, TierSpec, Tiering, block_bytes, plain_dtype, plain_id, save_tables,
};
pub use crate::kinds::logits_processor::{
    BatchChange, FollowTokens, LogitsProcessor, LogitsRow, LogitsRows, Need, RowId, RowMap,
};
pub use crate::kinds::lr_schedule::LrSchedule;
pub use crate::kinds::memory::{Memory, Message, Passage, Turn};
pub use crate::kinds::mixer::{HeadSizes, Mixer};
pub use crate::kinds::model_source::{ModelEntry, ModelSource, Progress};
pub use crate::kinds::moe_router::MoeRouter;
pub use crate::kinds::norm::Norm;
pub use crate::kinds::objective::Objective;
pub use crate::kinds::optimizer::Optimizer;
pub use crate::kinds::output_parser::{AnswerId, OutputParser, Piece};
pub use crate::kinds::quantizer::{
    Affine, AffineMut, Calibration, FormatDesc, Lowering, Quantizer, Scales,
};
pub use crate::kinds::residual::Residual;
pub use crate::kinds::reward::{RatedAnswer, Reward};
pub use crate::kinds::rotary_embedding::{Pairing, RotaryEmbedding, Rotation};
pub use crate::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};
pub use crate::kinds::{Capability, Handover, LayerRef, SemanticId, Traced};
pub use crate::plan::{
    Attrs, Dim, OpSink, OpSinkExt, Part, Per, Plan, Spec, StateSpec, Val, fused, ops,
};
pub use crate::tensor::{DType, Shaped, ShapedMut};
pub use crate::vocabulary::Vocabulary;
