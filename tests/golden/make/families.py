"""Tiny seeded models of families that differ from Llama in more than a few hyperparameters, and their reference logits.

Made with Python 3.11 and
    pip install mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 safetensors==0.8.0 tokenizers==0.23.3 numpy==2.4.6
    python tests/golden/make/families.py tests/golden

mlx-lm computes the logits, in F32 on the CPU: of a prompt at once, and once more token by token. Both have to agree
within 2e-4, or nothing is written. Prompts are those of tiny.py, which is run first.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from files import write, write_tensors
from mlx_lm.models import deepseek_v3, gpt_oss, llama4, mamba
from mlx_lm.models.cache import make_prompt_cache
from tiny import NUM_GREEDY, TOLERANCE, VOCAB_SIZE, shortest

COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "max_position_embeddings": 256,
    "bos_token_id": 510,
    "eos_token_id": 511,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}

GPT_OSS = COMMON | {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "attention_bias": True,
    "intermediate_size": 32,
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "swiglu_limit": 7.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
}

LLAMA4 = {
    "architectures": ["Llama4ForConditionalGeneration"],
    "model_type": "llama4",
    "text_config": COMMON | {
        "model_type": "llama4_text",
        "num_hidden_layers": 4,
        "attention_bias": False,
        "attention_chunk_size": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 32,
        "intermediate_size_mlp": 96,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "use_qk_norm": True,
        "attn_temperature_tuning": True,
        "floor_scale": 6,
        "attn_scale": 0.5,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
}

DEEPSEEK_V3 = COMMON | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "attention_bias": False,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
    },
}

MAMBA = COMMON | {
    "architectures": ["MambaForCausalLM"],
    "model_type": "mamba",
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "state_size": 16,
    "conv_kernel": 4,
    "time_step_rank": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}


class Random:
    """Random weights under their names, scaled so that every part moves the logits."""

    def __init__(self, seed):
        self.rng, self.weights = np.random.default_rng(seed), {}

    def normal(self, name, shape, deviation, mean=0.0):
        self.weights[name] = self.rng.normal(mean, deviation, shape).astype(np.float32)

    def linear(self, name, rows, columns, gain=1.5, bias=False):
        self.normal(name + ".weight", (rows, columns), gain / columns**0.5)
        if bias:
            self.normal(name + ".bias", rows, 0.5)

    def norm(self, name, size):
        self.normal(name + ".weight", size, 0.2, 1.0)

    def ends(self, hidden, prefix="model.", head="lm_head"):
        self.normal(prefix + "embed_tokens.weight", (VOCAB_SIZE, hidden), 1.0)
        self.norm(prefix + "norm", hidden)
        self.linear(head, VOCAB_SIZE, hidden, 2.0)

    def attention(self, p, config, bias=False):
        hidden, head_dim = config["hidden_size"], config["head_dim"]
        q, kv = (config[f"num_{of}_heads"] * head_dim for of in ("attention", "key_value"))
        self.linear(p + "q_proj", q, hidden, 1.5, bias)
        self.linear(p + "k_proj", kv, hidden, 1.5, bias)
        self.linear(p + "v_proj", kv, hidden, 1.5, bias)
        self.linear(p + "o_proj", hidden, q, 1.5, bias)

    def gated(self, p, inner, hidden):
        self.linear(p + "gate_proj", inner, hidden)
        self.linear(p + "up_proj", inner, hidden)
        self.linear(p + "down_proj", hidden, inner)


def gpt_oss_weights(config, seed):
    """As transformers has it: rows of gate and up take turns, matrices of experts are turned."""
    r, hidden, inner = Random(seed), config["hidden_size"], config["intermediate_size"]
    experts = config["num_local_experts"]
    r.ends(hidden)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        r.attention(p + "self_attn.", config, bias=True)
        r.normal(p + "self_attn.sinks", config["num_attention_heads"], 1.5)
        r.linear(p + "mlp.router", experts, hidden, 3.0, bias=True)
        # Wide enough that bounds are reached.
        r.normal(p + "mlp.experts.gate_up_proj", (experts, hidden, 2 * inner), 4.0 / hidden**0.5)
        r.normal(p + "mlp.experts.gate_up_proj_bias", (experts, 2 * inner), 0.5)
        r.normal(p + "mlp.experts.down_proj", (experts, inner, hidden), 0.5 / inner**0.5)
        r.normal(p + "mlp.experts.down_proj_bias", (experts, hidden), 0.5)
        r.norm(p + "input_layernorm", hidden)
        r.norm(p + "post_attention_layernorm", hidden)
    return r.weights


MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def mxfp4(x):
    """Codes of 4 bits, two of neighbours in a byte, and the exponent of each 32 of them."""
    groups = x.reshape(*x.shape[:-1], -1, 32).astype(np.float64)
    exponents = np.floor(np.log2(np.abs(groups).max(-1))) - 2
    scaled = groups / 2.0 ** exponents[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - MAGNITUDES).argmin(-1) + 8 * (scaled < 0)
    codes = codes.astype(np.uint8)
    pairs, scales = codes[..., ::2] | codes[..., 1::2] << 4, (exponents + 127).astype(np.uint8)
    # What is written to a file is memory, in its order.
    return np.ascontiguousarray(pairs), np.ascontiguousarray(scales)


def gpt_oss_mxfp4_weights(config, seed):
    """The same in the layout of the published checkpoints: experts as codes and scales, turned back."""
    weights = {}
    for name, w in gpt_oss_weights(config, seed).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            weights[name + "_blocks"], weights[name + "_scales"] = mxfp4(w.swapaxes(1, 2))
        else:
            weights[name] = w
    return weights


def gpt_oss_model(config, weights):
    """mlx-lm reads codes and scales; of numbers it knows its own layout only."""
    model = gpt_oss.Model(gpt_oss.ModelArgs.from_dict(config))
    is_quantized = any(name.endswith("_blocks") for name in weights)
    ours = {}
    for name, w in weights.items():
        ours[name] = w.swapaxes(1, 2) if name.endswith(("gate_up_proj", "down_proj")) else w
    ours = model.sanitize({name: mx.array(w) for name, w in ours.items()})
    if is_quantized:
        predicate = lambda path, module: f"{path}.scales" in ours
        nn.quantize(model, group_size=32, bits=4, mode="mxfp4", class_predicate=predicate)
    else:
        ends = ("gate_proj", "up_proj", "down_proj")
        ours = {name + ".weight" if name.endswith(ends) else name: w for name, w in ours.items()}
    model.load_weights(list(ours.items()), strict=True)
    return model


def llama4_weights(config, seed):
    """As transformers has it: gate and up stand side by side, matrices of experts are turned."""
    config = config["text_config"]
    r, hidden, inner = Random(seed), config["hidden_size"], config["intermediate_size"]
    experts = config["num_local_experts"]
    r.ends(hidden, "language_model.model.", "language_model.lm_head")
    for i in range(config["num_hidden_layers"]):
        p = f"language_model.model.layers.{i}."
        r.attention(p + "self_attn.", config)
        step = config["interleave_moe_layer_step"]
        if i % step == step - 1:
            m = p + "feed_forward."
            r.linear(m + "router", experts, hidden, 3.0)
            r.normal(m + "experts.gate_up_proj", (experts, hidden, 2 * inner), 1.5 / hidden**0.5)
            r.normal(m + "experts.down_proj", (experts, inner, hidden), 1.5 / inner**0.5)
            r.gated(m + "shared_expert.", inner, hidden)
        else:
            r.gated(p + "feed_forward.", config["intermediate_size_mlp"], hidden)
        r.norm(p + "input_layernorm", hidden)
        r.norm(p + "post_attention_layernorm", hidden)
    return r.weights


def deepseek_v3_weights(config, seed):
    r, hidden, heads = Random(seed), config["hidden_size"], config["num_attention_heads"]
    nope, rope, v = (config[f"{of}_head_dim"] for of in ("qk_nope", "qk_rope", "v"))
    rank = config["kv_lora_rank"]
    r.ends(hidden)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        r.linear(a + "q_a_proj", config["q_lora_rank"], hidden)
        r.norm(a + "q_a_layernorm", config["q_lora_rank"])
        r.linear(a + "q_b_proj", heads * (nope + rope), config["q_lora_rank"])
        r.linear(a + "kv_a_proj_with_mqa", rank + rope, hidden)
        r.norm(a + "kv_a_layernorm", rank)
        r.linear(a + "kv_b_proj", heads * (nope + v), rank)
        r.linear(a + "o_proj", hidden, heads * v)
        if i < config["first_k_dense_replace"]:
            r.gated(p + "mlp.", config["intermediate_size"], hidden)
        else:
            inner = config["moe_intermediate_size"]
            r.linear(p + "mlp.gate", config["n_routed_experts"], hidden, 2.0)
            r.normal(p + "mlp.gate.e_score_correction_bias", config["n_routed_experts"], 0.2)
            for e in range(config["n_routed_experts"]):
                r.gated(p + f"mlp.experts.{e}.", inner, hidden)
            r.gated(p + "mlp.shared_experts.", inner * config["n_shared_experts"], hidden)
        r.norm(p + "input_layernorm", hidden)
        r.norm(p + "post_attention_layernorm", hidden)
    return r.weights


def mamba_weights(config, seed):
    r, hidden, inner = Random(seed), config["hidden_size"], config["intermediate_size"]
    n, rank = config["state_size"], config["time_step_rank"]
    r.normal("backbone.embeddings.weight", (VOCAB_SIZE, hidden), 0.25)
    r.norm("backbone.norm_f", hidden)
    for i in range(config["num_hidden_layers"]):
        p = f"backbone.layers.{i}."
        r.norm(p + "norm", hidden)
        p += "mixer."
        r.linear(p + "in_proj", 2 * inner, hidden)
        r.normal(p + "conv1d.weight", (inner, 1, config["conv_kernel"]), 0.6)
        r.normal(p + "conv1d.bias", inner, 0.3)
        r.linear(p + "x_proj", rank + 2 * n, inner)
        r.linear(p + "dt_proj", inner, rank)
        r.normal(p + "dt_proj.bias", inner, 1.0, -3.0)
        decay = np.log(np.arange(1.0, n + 1.0))
        r.weights[p + "A_log"] = (decay + r.rng.normal(0, 0.1, (inner, n))).astype(np.float32)
        r.normal(p + "D", inner, 0.3, 1.0)
        r.linear(p + "out_proj", hidden, inner)
    return r.weights


def model_of(module):
    def make(config, weights):
        model = module.Model(module.ModelArgs.from_dict(config))
        weights = model.sanitize({name: mx.array(w) for name, w in weights.items()})
        model.load_weights(list(weights.items()), strict=True)
        return model

    return make


# Configuration, weights, model, seed: chosen for wide gaps between the best two.
FAMILIES = {
    "tiny_gpt_oss": (GPT_OSS, gpt_oss_weights, gpt_oss_model, 1),
    "tiny_gpt_oss_mxfp4": (GPT_OSS, gpt_oss_mxfp4_weights, gpt_oss_model, 1),
    "tiny_llama4": (LLAMA4, llama4_weights, model_of(llama4), 1),
    "tiny_deepseek_v3": (DEEPSEEK_V3, deepseek_v3_weights, model_of(deepseek_v3), 3),
    "tiny_mamba": (MAMBA, mamba_weights, model_of(mamba), 1),
}


def generate(model, prompt):
    """Logits after a prompt; then greedy tokens, one at a time."""
    cache = make_prompt_cache(model)
    logits = np.array(model(mx.array([prompt]), cache=cache)[0, -1])
    first, tokens, gaps = logits, [], []
    for _ in range(NUM_GREEDY):
        top2 = np.sort(logits)[-2:]
        gaps.append(float(top2[1] - top2[0]))
        tokens.append(int(logits.argmax()))
        logits = np.array(model(mx.array([tokens[-1:]]), cache=cache)[0, -1])
    return first, tokens, gaps


def token_by_token(model, prompt):
    cache = make_prompt_cache(model)
    for token in prompt:
        logits = model(mx.array([[token]]), cache=cache)[0, -1]
        mx.eval(logits)
    return np.array(logits)


def cases_of(name, prompts, seed=None):
    config, make_weights, make_model, chosen = FAMILIES[name]
    weights = make_weights(config, chosen if seed is None else seed)
    model = make_model(config, weights)
    cases = []
    for prompt in prompts:
        logits, greedy, gaps = generate(model, prompt)
        error = float(np.abs(logits - token_by_token(model, prompt)).max())
        print(
            f"{name:18} {len(prompt):3} tokens: std {logits.std():.2f}, smallest gap {min(gaps):.4f}, "
            f"{len(set(greedy))} distinct, token by token {error:.1e} away"
        )
        assert error < TOLERANCE * max(1.0, np.abs(logits).max())
        assert min(gaps) > 10 * TOLERANCE and len(set(greedy)) > 2
        cases.append({"ids": prompt, "logits": shortest(logits), "greedy": greedy, "gap_min": round(min(gaps), 4)})
    return config, weights, cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the fixtures")
    out = parser.parse_args().out
    mx.set_default_device(mx.cpu)
    prompts = [case["ids"] for case in json.loads((out / "tiny_expected.json").read_text())["tiny"]]
    expected = {}
    for name in FAMILIES:
        config, weights, expected[name] = cases_of(name, prompts)
        write_tensors(out / f"{name}.safetensors", weights, {"format": "pt"})
        write(out / f"{name}.config.json", json.dumps(config, indent=2) + "\n")
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]"
        for name, cases in expected.items()
    )
    write(out / "families_expected.json", "{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
