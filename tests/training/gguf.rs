//! A model as a GGUF file, whose rows of queries and keys lie otherwise: trained and served as the folder is.

use std::path::{Path, PathBuf};

use jackfield_engine::model::ModelFiles;
use jackfield_engine::train::{Parameter, Parameters};
use jackfield_tests::{golden, tiny_model};
use serde_json::Value;

use crate::lora::{assert_near, held_out, served, trained};
use crate::{parameters, setup, trainer_of};

#[allow(dead_code, reason = "the tests of the engine use all of it")]
#[path = "../../host/engine/src/model/gguf/writer.rs"]
mod writer;
use writer::Writer;

const HEAD_DIM: usize = 16;

/// Our name of a part, and that of GGUF.
const PARTS: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

fn theirs(ours: &str) -> String {
    let whole = [
        ("embed_tokens.weight", "token_embd.weight"),
        ("norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    if let Some((_, theirs)) = whole.iter().find(|(name, _)| *name == ours) {
        return (*theirs).to_owned();
    }
    let (layer, part) = ours.strip_prefix("layers.").unwrap().split_once('.').unwrap();
    let (_, theirs) = PARTS.iter().find(|(name, _)| part == format!("{name}.weight")).unwrap();
    format!("blk.{layer}.{theirs}.weight")
}

/// `permute` of llama.cpp's converter: of each head `[2, d/2, width]` becomes `[d/2, 2, width]`.
fn permuted(parameter: &Parameter) -> Vec<f32> {
    let width = parameter.dims[1] as usize;
    let heads = parameter.values.chunks(HEAD_DIM * width);
    let mut out = Vec::new();
    for head in heads {
        for pair in 0..HEAD_DIM / 2 {
            for half in 0..2 {
                let row = half * (HEAD_DIM / 2) + pair;
                out.extend_from_slice(&head[row * width..][..width]);
            }
        }
    }
    out
}

/// The tiny model as the converter writes it.
fn tiny_gguf(folder: &Path) -> PathBuf {
    let json = std::fs::read(golden("tiny.tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_slice(&json).unwrap();
    let mut tokens = vec![String::new(); 512];
    for (token, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap() as usize;
        tokens[id] = added["content"].as_str().unwrap().to_owned();
    }
    let merges: Vec<String> = tokenizer["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Value::String(merge) => merge.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        })
        .collect();
    let mut writer = Writer::new()
        .str("general.architecture", "llama")
        .u32("llama.embedding_length", 64)
        .u32("llama.block_count", 2)
        .u32("llama.feed_forward_length", 176)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .u32("llama.attention.key_length", HEAD_DIM as u32)
        .u32("llama.context_length", 256)
        .raw("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes())
        .raw("llama.rope.freq_base", 6, &10000.0_f32.to_le_bytes())
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "default")
        .strs("tokenizer.ggml.tokens", &tokens)
        .strs("tokenizer.ggml.merges", &merges)
        .u32("tokenizer.ggml.eos_token_id", 511);
    let mut bytes = Vec::new();
    for (name, parameter) in &parameters().0 {
        let is_moved = name.contains("q_proj") || name.contains("k_proj");
        let values = if is_moved { permuted(parameter) } else { parameter.values.clone() };
        let dims: Vec<u64> = parameter.dims.iter().rev().copied().collect();
        writer = writer.tensor(&theirs(name), &dims, 0, bytes.len() as u64);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(32), 0);
    }
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, writer.data(&bytes).bytes()).unwrap();
    path
}

#[test]
fn a_run_reads_the_parameters_of_the_folder_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = tiny_gguf(folder.path());
    assert!(ModelFiles::open(&path).unwrap().tokenizer().is_ok());
    let setup = setup("cpu");
    let (architecture, found) =
        Parameters::of_model(&path, &setup.wiring, &setup.registry).unwrap();
    assert!(found == parameters(), "rows lie as in the folder");
    assert_eq!(architecture.config.text("rope_pairing"), Ok("half-split"));
    // The plan that goes with them computes what that of the folder does.
    let batch = held_out();
    let expected = trainer_of(&setup, parameters()).logits(&batch).unwrap();
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let clock = std::sync::Arc::new(jackfield_runtime::SystemClock::new());
    let options = crate::options();
    let mut trainer =
        jackfield_engine::Trainer::new(architecture, found, wiring, registry, bus, clock, options)
            .unwrap();
    assert_near("logits", &trainer.logits(&batch).unwrap(), &expected);
}

#[test]
fn an_adapter_beside_the_file_adds_what_it_adds_beside_the_folder() {
    let (folder, adapter) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = tiny_gguf(folder.path());
    let (lora, _) = trained();
    lora.save(adapter.path(), "tiny").unwrap();
    let beside_folder = served(tiny_model("tiny").path(), Some(adapter.path()));
    assert_near("served", &served(&path, Some(adapter.path())), &beside_folder);
    assert_near("plain", &served(&path, None), &served(tiny_model("tiny").path(), None));
}
