"""Tiny seeded models, their tokenizer and their reference logits.

Made with Python 3.11 and
    pip install mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 safetensors==0.8.0 tokenizers==0.23.3 numpy==2.4.6
    python tests/golden/make/tiny.py tests/golden

mlx-lm computes the logits, in F32 on the CPU. A second forward pass, in numpy and float64 and sharing no code with it,
has to agree with every logit within 2e-4 and with every greedy token, or nothing is written.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from files import write, write_tensors
from mlx_lm.models import gemma3_text, llama, mixtral, qwen2, qwen3, qwen3_moe
from mlx_lm.models.cache import make_prompt_cache
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 512
NUM_GREEDY = 32
TOLERANCE = 2e-4

COMMON = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 510,
    "eos_token_id": 511,
    "torch_dtype": "float32",
}

CONFIGS = {
    "tiny": COMMON | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "mlp_bias": False,
    },
    "tiny_qwen2": {k: v for k, v in COMMON.items() if k not in ("head_dim", "attention_bias")} | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "tiny_qwen3": COMMON | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "tiny_gemma3": COMMON | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "head_dim": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": 48,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
    },
    "tiny_mixtral": {k: v for k, v in COMMON.items() if k != "head_dim"} | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "intermediate_size": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_theta": 1000000.0,
    },
    "tiny_qwen3_moe": COMMON | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [0],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
}

# The weights of `tiny`, read past an original context of 32 tokens by each scaling of rotary embeddings.
SCALINGS = {
    "tiny_linear": {"rope_type": "linear", "factor": 4.0},
    "tiny_yarn": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    "tiny_longrope": {
        "rope_type": "longrope",
        "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8,
        "long_factor": [1.0, 1.25, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0],
    },
}
CONFIGS |= {name: CONFIGS["tiny"] | {"rope_scaling": scaling} for name, scaling in SCALINGS.items()}

MLX_MODULES = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gemma3_text": gemma3_text,
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
}
SEEDS = {
    "tiny": 17,
    "tiny_qwen2": 4,
    "tiny_qwen3": 6,
    "tiny_gemma3": 19,
    "tiny_mixtral": 10,
    "tiny_qwen3_moe": 6,
}  # chosen for wide gaps between the best two

TRAINING_TEXT = """\
The jack field stands at the back of the exchange, and every line in the town ends there in a small brass hole.
A cord has two plugs. The operator takes one plug, finds the calling line, and asks which number is wanted; then
the other plug goes into the other line, and two people who could not hear each other can talk to each other.
Nothing in the field knows what the callers say. The field only knows which line is joined to which, and when.
When the call is over the cords fall back, the lamps go out, and the same cord is used again for another call.
If a line is broken, the operator pulls the plug, tries the next one, and the callers hardly notice the change.
How many calls can one operator hold? Ten, perhaps twelve; the rest have to wait, and the lamps tell who waited longest.
A switchboard that must never close is repaired while it is in use: one panel is taken out, its lines are moved to a spare
panel, the new panel is tested with a quiet line first, and only then does the traffic return. Mechanics learn early
that a good connection is judged by what happens when it fails. Keep the spare cords oiled, write down each change,
measure before and after, and do not trust a number that nobody else could have found. At night, with few callers,
the supervisor walks along the rows with a notebook, listening for clicks, counting switches, and marking weak springs.
"""

TEXTS = [
    "The operator",
    "the other plug goes into the other line",
    "Who waited longest? The operator doesn't know, and 12 lamps are still lit.\n\tThen they go out.",
    "naïve café, 電話交換, 🙂",
    "  two  spaces ",
    "",
    "<|bos|>The field<|eos|>",
]


def train_tokenizer():
    """Byte-level BPE: 256 bytes, 254 merges, then <|bos|> = 510 and <|eos|> = 511."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT.splitlines(keepends=True), trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE - 2, "too little text for that many merges"
    tokenizer.add_special_tokens(["<|bos|>", "<|eos|>"])
    assert tokenizer.token_to_id("<|eos|>") == VOCAB_SIZE - 1
    return tokenizer


GATED = ("gate_proj", "up_proj", "down_proj")


def experts_of(config, layer):
    """The mixture of a layer: names of its router and of its experts' weights; nothing for a gated part."""
    if config["model_type"] == "mixtral":
        count, prefix = config["num_local_experts"], "block_sparse_moe."
        names, inter = ("w1", "w3", "w2"), config["intermediate_size"]
    elif config["model_type"] == "qwen3_moe" and layer not in config["mlp_only_layers"]:
        count, prefix = config["num_experts"], "mlp."
        names, inter = GATED, config["moe_intermediate_size"]
    else:
        return None
    scopes = [(f"{prefix}experts.{e}.", names, inter) for e in range(count)]
    return {"router": prefix + "gate", "count": count, "scopes": scopes}


def make_weights(config, seed):
    """Random weights under their Hugging Face names, scaled so that every part moves the logits."""
    rng = np.random.default_rng(seed)
    hidden = config["hidden_size"]
    head_dim = config.get("head_dim", hidden // config["num_attention_heads"])
    q_size = config["num_attention_heads"] * head_dim
    kv_size = config["num_key_value_heads"] * head_dim
    gemma = config["model_type"] == "gemma3_text"
    weights = {}

    def linear(name, rows, columns, gain):
        weights[name + ".weight"] = rng.normal(0, gain / columns**0.5, (rows, columns))

    def norm(name, size, mean=1.0):
        weights[name + ".weight"] = rng.normal(mean - gemma, 0.2, size)

    tied = config["tie_word_embeddings"]
    weights["model.embed_tokens.weight"] = rng.normal(0, 0.25 if tied else 1, (VOCAB_SIZE, hidden))
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        linear(p + "self_attn.q_proj", q_size, hidden, 1.5)
        linear(p + "self_attn.k_proj", kv_size, hidden, 1.5)
        linear(p + "self_attn.v_proj", kv_size, hidden, 1.5)
        linear(p + "self_attn.o_proj", hidden, q_size, 1.5)
        experts = experts_of(config, i)
        if experts:
            linear(p + experts["router"], experts["count"], hidden, 3.0)
        for scope, names, inter in experts["scopes"] if experts else [("mlp.", GATED, config["intermediate_size"])]:
            gate, up, down = names
            linear(p + scope + gate, inter, hidden, 1.5)
            linear(p + scope + up, inter, hidden, 1.5)
            linear(p + scope + down, hidden, inter, 1.5)
        norm(p + "input_layernorm", hidden)
        norm(p + "post_attention_layernorm", hidden, 6.0 if gemma else 1.0)
        if gemma:
            norm(p + "pre_feedforward_layernorm", hidden)
            norm(p + "post_feedforward_layernorm", hidden, 6.0)
        if config["model_type"] == "qwen2":
            for name, size in (("q", q_size), ("k", kv_size), ("v", kv_size)):
                weights[p + f"self_attn.{name}_proj.bias"] = rng.normal(0, 0.5, size)
        if config["model_type"] in ("qwen3", "qwen3_moe", "gemma3_text"):
            norm(p + "self_attn.q_norm", head_dim, 1.5)
            norm(p + "self_attn.k_norm", head_dim, 1.5)
    norm("model.norm", hidden)
    if not tied:
        linear("lm_head", VOCAB_SIZE, hidden, 2.0)
    return {name: w.astype(np.float32) for name, w in weights.items()}


def mlx_model(config, weights):
    module = MLX_MODULES[config["model_type"]]
    model = module.Model(module.ModelArgs.from_dict(config))
    weights = {name: mx.array(w) for name, w in weights.items()}
    model.load_weights(list(model.sanitize(weights).items()), strict=True)
    return model


def mlx_generate(model, prompt):
    """Last-position logits of the prompt; then greedy tokens, one at a time through the cache."""
    cache = make_prompt_cache(model)
    logits = np.array(model(mx.array([prompt]), cache=cache)[0, -1])
    first, tokens, gaps = logits, [], []
    for _ in range(NUM_GREEDY):
        top2 = np.sort(logits)[-2:]
        gaps.append(float(top2[1] - top2[0]))
        tokens.append(int(logits.argmax()))
        logits = np.array(model(mx.array([tokens[-1:]]), cache=cache)[0, -1])
    return first, tokens, gaps


def scaled(config, inv_freq, theta):
    """Frequencies, and the factor on cosine and sine, of the scaling in `config`."""
    scaling = config.get("rope_scaling", {"rope_type": "default"})
    if scaling["rope_type"] == "linear":
        return inv_freq / scaling["factor"], 1.0
    if scaling["rope_type"] == "longrope":
        original = scaling["original_max_position_embeddings"]
        longer = config["max_position_embeddings"] / original
        return inv_freq / scaling["long_factor"], (1 + np.log(longer) / np.log(original)) ** 0.5
    if scaling["rope_type"] == "yarn":
        half, factor = len(inv_freq), scaling["factor"]
        turns = scaling["original_max_position_embeddings"] / (2 * np.pi)
        low, high = (half * np.log(turns / beta) / np.log(theta) for beta in (32, 1))
        low, high = max(np.floor(low), 0), min(np.ceil(high), 2 * half - 1)
        slow = ((np.arange(half) - low) / (high - low)).clip(0, 1)
        return inv_freq * (1 - slow) + inv_freq / factor * slow, 0.1 * np.log(factor) + 1
    return inv_freq, 1.0


def numpy_forward(config, weights, tokens):
    """The same models from their definitions: float64, the whole sequence at once, no cache."""
    w = {name: x.astype(np.float64) for name, x in weights.items()}
    gemma = config["model_type"] == "gemma3_text"
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    n = len(tokens)
    position = np.arange(n)

    def rms(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * (w[name + ".weight"] + gemma)

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    def rotate(x, theta):  # half-split pairing
        half = head_dim // 2
        inv_freq, factor = scaled(config, theta ** (-np.arange(half) / half), theta)
        angle = position[:, None] * inv_freq
        cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    h = w["model.embed_tokens.weight"][tokens]
    if gemma:
        h = h * config["hidden_size"] ** 0.5
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        sliding = config.get("layer_types", {i: "full_attention"})[i] == "sliding_attention"
        theta = config["rope_local_base_freq"] if sliding else config["rope_theta"]
        x = rms(h, p + "input_layernorm")
        q, k, v = (
            linear(x, p + f"self_attn.{name}_proj").reshape(n, count, head_dim).swapaxes(0, 1)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        if p + "self_attn.q_norm.weight" in w:
            q, k = rms(q, p + "self_attn.q_norm"), rms(k, p + "self_attn.k_norm")
        q, k = rotate(q, theta), rotate(k, theta)
        k, v = (np.repeat(x, heads // kv_heads, axis=0) for x in (k, v))
        scores = q @ k.swapaxes(1, 2) / config.get("query_pre_attn_scalar", head_dim) ** 0.5
        distance = position[:, None] - position[None, :]
        hidden = (distance < 0) | (sliding & (distance >= config.get("sliding_window", n)))
        scores = np.where(hidden, -np.inf, scores)
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        x = linear((probs @ v).swapaxes(0, 1).reshape(n, -1), p + "self_attn.o_proj")
        if gemma:
            h = h + rms(x, p + "post_attention_layernorm")
            x = rms(h, p + "pre_feedforward_layernorm")
        else:
            h = h + x
            x = rms(h, p + "post_attention_layernorm")

        def gated(x, scope, names):
            gate, up, down = (p + scope + name for name in names)
            gate = linear(x, gate)
            if gemma:
                gate = 0.5 * gate * (1 + np.tanh((2 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
            else:
                gate = gate / (1 + np.exp(-gate))
            return linear(gate * linear(x, up), down)

        experts = experts_of(config, i)
        if experts:
            logits = linear(x, p + experts["router"])
            best = np.argsort(-logits, axis=-1)[:, : config["num_experts_per_tok"]]
            shares = np.zeros_like(logits)
            for row, chosen in enumerate(best):
                exps = np.exp(logits[row, chosen] - logits[row].max())
                shares[row, chosen] = exps / exps.sum()
            of_each = [gated(x, scope, names) for scope, names, _ in experts["scopes"]]
            x = sum(shares[:, e, None] * of_each[e] for e in range(experts["count"]))
        else:
            x = gated(x, "mlp.", GATED)
        h = h + (rms(x, p + "post_feedforward_layernorm") if gemma else x)
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return linear(rms(h, "model.norm"), head)


def numpy_generate(config, weights, prompt):
    tokens, first = list(prompt), None
    for _ in range(NUM_GREEDY):
        logits = numpy_forward(config, weights, tokens)[-1]
        first = logits if first is None else first
        tokens.append(int(logits.argmax()))
    return first, tokens[len(prompt):]


def shortest(values):
    """F32 values as the shortest decimals that read back to the same F32."""
    return [float(str(v)) for v in np.asarray(values, np.float32)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the fixtures")
    out = parser.parse_args().out
    mx.set_default_device(mx.cpu)

    tokenizer = train_tokenizer()
    text_ids = tokenizer.encode(" ".join(TRAINING_TEXT.split("\n")[1:3])).ids
    prompts = [[510], [510] + text_ids[:6], [510] + text_ids[6:38]]
    expected = {"tokenizer": [{"text": t, "ids": tokenizer.encode(t).ids} for t in TEXTS]}

    for name, config in CONFIGS.items():
        shared = "tiny" if name in SCALINGS else name
        weights = make_weights(config, SEEDS[shared])
        model = mlx_model(config, weights)
        cases = []
        for prompt in prompts:
            logits, greedy, gaps = mlx_generate(model, prompt)
            check_logits, check_greedy = numpy_generate(config, weights, prompt)
            error = float(np.abs(logits - check_logits).max())
            print(
                f"{name:12} {len(prompt):3} tokens: std {logits.std():.2f}, smallest gap {min(gaps):.4f}, "
                f"{len(set(greedy))} distinct, max difference {error:.1e}, same greedy {greedy == check_greedy}"
            )
            assert error < TOLERANCE and greedy == check_greedy and min(gaps) > 10 * TOLERANCE
            cases.append({"ids": prompt, "logits": shortest(logits), "greedy": greedy, "gap_min": round(min(gaps), 4)})
        expected[name] = cases
        if shared == name:
            write_tensors(out / f"{name}.safetensors", weights, {"format": "pt"})
        write(out / f"{name}.config.json", json.dumps(config, indent=2) + "\n")

    write(out / "tiny.tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]"
        for name, cases in expected.items()
    )
    write(out / "tiny_expected.json", "{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
