//! Links every builtin plugin. Written by `BLESS=1 cargo tidy`; do not edit.

#[cfg(feature = "candle")]
use backend_candle as _;
use backend_cpu as _;
#[cfg(feature = "cuda")]
use backend_cuda as _;
use backend_null as _;
use backend_reference as _;
use plugin_adamw as _;
use plugin_add as _;
use plugin_attention as _;
use plugin_bert as _;
use plugin_bf16 as _;
use plugin_causal_lm as _;
use plugin_constant as _;
use plugin_contiguous as _;
use plugin_continuous as _;
use plugin_cosine as _;
use plugin_early_stop as _;
use plugin_f16 as _;
use plugin_f32 as _;
use plugin_fcfs as _;
use plugin_file as _;
use plugin_geglu as _;
use plugin_grad_clip as _;
use plugin_greedy as _;
use plugin_hf_hub as _;
use plugin_layer_norm as _;
use plugin_linear as _;
use plugin_lion as _;
use plugin_llama3 as _;
use plugin_logit_bias as _;
use plugin_longrope as _;
use plugin_metrics_jsonl as _;
use plugin_min_p as _;
use plugin_mxfp4 as _;
use plugin_ntk as _;
use plugin_occurrence_penalty as _;
use plugin_paged as _;
use plugin_priority as _;
use plugin_prompt_lookup as _;
use plugin_pypi as _;
use plugin_q4_0 as _;
use plugin_q4_1 as _;
use plugin_q4_k as _;
use plugin_q5_0 as _;
use plugin_q5_1 as _;
use plugin_q5_k as _;
use plugin_q6_k as _;
use plugin_q8_0 as _;
use plugin_repetition_penalty as _;
use plugin_rms_norm as _;
use plugin_sample as _;
use plugin_sgd as _;
use plugin_skip_broken_steps as _;
use plugin_standard as _;
use plugin_stop_words as _;
use plugin_swiglu as _;
use plugin_temperature as _;
use plugin_top_k as _;
use plugin_top_p as _;
use plugin_wsd as _;
use plugin_yarn as _;

/// How many plugins are listed above: fewer at run time means that the linker dropped one.
pub(crate) const LISTED: usize =
    58 + cfg!(feature = "candle") as usize + cfg!(feature = "cuda") as usize;
