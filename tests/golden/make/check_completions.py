"""Compares `exact_logprobs` of the first completion with the numpy forward pass (float64) of tiny.py.

    pip install xllamacpp==2026.10.11549 mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 \\
        safetensors==0.8.0 tokenizers==0.23.3 gguf==0.19.0 numpy==2.4.6
    python tests/golden/make/check_completions.py smollm2 MODEL.f32.gguf tests/golden/llama_cpp

Writes nothing. Largest differences found: smollm2 2e-5, qwen2 1e-5, gemma3 6e-3. llama.cpp looks GELU up in an F16 table:
rounding it to F16 in numpy moves the log-probabilities of gemma3 by as much, 5e-3.
"""

import argparse
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from llama_c import log_softmax
from safetensors import safe_open
from tiny import numpy_forward

NUM_POSITIONS = 16
MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "gemma3": "gemma3_text"}
GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LLAMA_NORMS = {"ffn_norm": "post_attention_layernorm"}
GEMMA_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def half_split(weight, num_heads):
    """GGUF stores q and k of the llama architecture for interleaved RoPE."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, rows // num_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def load(path):
    reader = GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()

    def get(key, default=None):
        field = reader.fields.get(f"{architecture}.{key}")
        return default if field is None else field.contents()

    gemma = architecture == "gemma3"
    heads, hidden, layers = get("attention.head_count"), get("embedding_length"), get("block_count")
    config = {
        "model_type": MODEL_TYPES[architecture],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv"),
        "head_dim": get("attention.key_length", hidden // heads),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": get("rope.freq_base", 10000.0),
    }
    if gemma:
        config |= {
            "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(layers)],
            "sliding_window": get("attention.sliding_window"),
            "rope_local_base_freq": 10000.0,
        }
    names = LAYER_NAMES | (GEMMA_NORMS if gemma else LLAMA_NORMS)
    weights = {}
    for tensor in reader.tensors:
        parts, value = tensor.name.split("."), np.array(tensor.data)
        if gemma and "norm" in tensor.name:
            value = value - 1  # GGUF stores 1 + weight
        if architecture == "llama" and parts[-2] in ("attn_q", "attn_k"):
            value = half_split(value, config["num_attention_heads" if parts[-2] == "attn_q" else "num_key_value_heads"])
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.{parts[3]}"
        else:
            name = f"{GLOBAL_NAMES[parts[0]]}.{parts[1]}"
        weights[name] = value
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    return config, weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("gguf_f32", type=Path)
    parser.add_argument("goldens", type=Path)
    args = parser.parse_args()

    golden = safe_open(args.goldens / f"{args.model}.safetensors", "np")
    prompt, tokens = golden.get_tensor("p00.prompt"), golden.get_tensor("p00.tokens")[: NUM_POSITIONS - 1]
    logits = numpy_forward(*load(args.gguf_f32), np.concatenate([prompt, tokens]).astype(np.int64))
    logprobs = log_softmax(logits[len(prompt) - 1 :])
    top = golden.get_tensor("p00.top_ids")[:NUM_POSITIONS].astype(np.int64)
    difference = np.take_along_axis(logprobs, top, axis=1) - golden.get_tensor("p00.exact_logprobs")[:NUM_POSITIONS]
    print(f"{args.model}: largest difference {np.abs(difference).max():.1e}")


if __name__ == "__main__":
    main()
