"""Losses of 50 steps of AdamW with a cosine schedule: what tests/training.rs expects of the trainer.

Made with Debian's python3-torch (PyTorch 1.13.1), in F64 on the CPU:
    python3 tests/golden/make/trainer.py > tests/golden/trainer_losses.txt

The model is tests/golden/tiny.safetensors, a Llama of two layers; a token is a byte of plugin-api/tests/training/text.txt.
Batches come from the same SplitMix64 streams as those of the trainer.
"""

import json
import pathlib
import struct

import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).parents[3]
TEXT = (ROOT / "plugin-api/tests/training/text.txt").read_bytes()
LENGTH, SEQUENCES, MICRO_BATCHES, STEPS, WARMUP, SEED = 16, 4, 2, 50, 5, 3
RATE, FLOOR = 3e-3, 0.1
HEADS, KV_HEADS, HEAD_DIM, LAYERS, EPS, THETA = 4, 2, 16, 2, 1e-5, 1e4


class Random:
    def __init__(self, seed):
        self.state = seed

    def below(self, end):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return (x ^ (x >> 31)) % end


def sequences():
    count, epoch = (len(TEXT) - 1) // LENGTH, 0
    while True:
        random, order = Random(SEED + epoch), list(range(count))
        for last in range(count - 1, 0, -1):
            at = random.below(last + 1)
            order[last], order[at] = order[at], order[last]
        for start in order:
            yield list(TEXT[start * LENGTH : (start + 1) * LENGTH + 1])
        epoch += 1


def tensors():
    data = (ROOT / "tests/golden/tiny.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body, found = json.loads(data[8 : 8 + size]), data[8 + size :], {}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32", entry
            start, end = entry["data_offsets"]
            values = torch.frombuffer(bytearray(body[start:end]), dtype=torch.float32)
            found[name] = values.double().reshape(entry["shape"]).requires_grad_()
    return found


def rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def rotate(x):
    inv_freq = THETA ** -(torch.arange(0, HEAD_DIM, 2, dtype=x.dtype) / HEAD_DIM)
    angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * inv_freq
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def logits(p, ids):
    x = p["model.embed_tokens.weight"][ids]
    rows = ids.shape
    for i in range(LAYERS):
        w = lambda name: p[f"model.layers.{i}.{name}.weight"]
        n = rms_norm(x, w("input_layernorm"))
        q = rotate((n @ w("self_attn.q_proj").T).view(*rows, HEADS, HEAD_DIM)).transpose(1, 2)
        k = rotate((n @ w("self_attn.k_proj").T).view(*rows, KV_HEADS, HEAD_DIM)).transpose(1, 2)
        v = (n @ w("self_attn.v_proj").T).view(*rows, KV_HEADS, HEAD_DIM).transpose(1, 2)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        future = torch.ones(rows[1], rows[1], dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(2, 3) * HEAD_DIM**-0.5).masked_fill(future, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(*rows, -1)
        x = x + mixed @ w("self_attn.o_proj").T
        n = rms_norm(x, w("post_attention_layernorm"))
        x = x + (F.silu(n @ w("mlp.gate_proj").T) * (n @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
    return rms_norm(x, p["model.norm.weight"]) @ p["lm_head.weight"].T


def factor(step):
    warmed = torch.tensor((step + 1) / WARMUP)
    progress = min(max((step - WARMUP) / (STEPS - WARMUP), 0.0), 1.0)
    fall = FLOOR + (1 - FLOOR) * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress)))
    return min(warmed, fall).item()


def main():
    torch.set_num_threads(2)
    params, text = tensors(), sequences()
    optimizer = torch.optim.AdamW(params.values(), lr=RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * factor(step)
        batch = torch.tensor([next(text) for _ in range(SEQUENCES * MICRO_BATCHES)])
        loss = F.cross_entropy(logits(params, batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(repr(loss.item()))


main()
