"""Logits of `tiny_mixtral` with experts that a hash of the token chooses.

Made with Python 3.11 and
    pip install mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 safetensors==0.8.0 tokenizers==0.23.3 numpy==2.4.6
    python tests/golden/make/hash_router.py tests/golden

mlx-lm computes everything, in F32 on the CPU, but for the choice, which is made here: `choose` is the definition in
Roller et al., arXiv:2106.04426, section 3.1, of a random hash, with the finalizer of MurmurHash3 as the hash.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from files import write
from mlx_lm.models import mixtral
from mlx_lm.models.cache import make_prompt_cache
from tiny import CONFIGS, SEEDS, make_weights, mlx_model, shortest

MODEL = "tiny_mixtral"
SEEDS_OF_HASH = (0, 7)
PROMPTS = ([510], [510, 3, 7, 42, 99], [510] + [(17 * i + 5) % 500 for i in range(31)])
NUM_GREEDY = 24


def mixed(x):
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


def choose(seed, layer, token, experts, choices):
    """Draws without putting back: each time one of those that are left, in their order."""
    left, start = list(range(experts)), mixed(mixed(seed ^ layer) ^ token)
    return [left.pop(mixed((start + i) & 0xFFFFFFFF) % len(left)) for i in range(choices)]


class Routed:
    """The mixture of a layer, with the choice made by token."""

    def __init__(self, seed):
        self.seed, self.tokens = seed, []

    def __call__(self, block, x):
        gates = block.gate(x)
        experts, choices = gates.shape[-1], block.num_experts_per_tok
        chosen = [[choose(self.seed, block.layer, t, experts, choices) for t in self.tokens]]
        chosen = mx.array(chosen, dtype=mx.uint32)
        scores = mx.softmax(mx.take_along_axis(gates, chosen, axis=-1), axis=-1, precise=True)
        return (block.switch_mlp(x, chosen) * scores[..., None]).sum(axis=-2)


def generate(model, routed, prompt):
    cache = make_prompt_cache(model)

    def step(tokens):
        routed.tokens = tokens
        return np.array(model(mx.array([tokens]), cache=cache)[0, -1])

    logits = first = step(prompt)
    tokens = []
    for _ in range(NUM_GREEDY):
        tokens.append(int(logits.argmax()))
        logits = step(tokens[-1:])
    return first, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the fixtures")
    out = parser.parse_args().out
    mx.set_default_device(mx.cpu)

    config = CONFIGS[MODEL]
    model = mlx_model(config, make_weights(config, SEEDS[MODEL]))
    for index, layer in enumerate(model.model.layers):
        layer.block_sparse_moe.layer = index
    cases = []
    for seed in SEEDS_OF_HASH:
        routed = Routed(seed)
        mixtral.MixtralSparseMoeBlock.__call__ = lambda block, x, routed=routed: routed(block, x)
        for prompt in PROMPTS:
            logits, greedy = generate(model, routed, list(prompt))
            cases.append({"seed": seed, "ids": list(prompt), "logits": shortest(logits), "greedy": greedy})
    write(out / "hash_router.json", "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
