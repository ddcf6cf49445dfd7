"""Losses of a tiny decoder over 50 steps of SGD: what plugin-api/tests/training.rs expects.

Made with Debian's python3-torch (PyTorch 1.13.1), in F64 on the CPU:
    python3 tests/golden/make/training.py > plugin-api/tests/training/losses.txt

Weights, text and batches come from the same SplitMix64 streams as in the test, so that there is no file of weights.
"""

import torch
import torch.nn.functional as F

VOCAB, HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 128, 16, 32, 2, 4, 2, 4
SEQUENCES, LENGTH, STEPS, RATE, EPS = 4, 17, 50, 0.5, 1e-5
TEXT = open(__file__.replace("tests/golden/make/training.py", "plugin-api/tests/training/text.txt"), "rb").read()


class Random:
    def __init__(self, seed):
        self.state = seed

    def bits(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    def signed(self):
        return (self.bits() >> 40) / 2**23 - 1.0


def shapes():
    yield "embed_tokens", [VOCAB, HIDDEN]
    for i in range(LAYERS):
        yield f"{i}.input_norm", [HIDDEN]
        yield f"{i}.q", [HEADS * HEAD_DIM, HIDDEN]
        yield f"{i}.k", [KV_HEADS * HEAD_DIM, HIDDEN]
        yield f"{i}.v", [KV_HEADS * HEAD_DIM, HIDDEN]
        yield f"{i}.o", [HIDDEN, HEADS * HEAD_DIM]
        yield f"{i}.post_norm", [HIDDEN]
        yield f"{i}.gate", [INTERMEDIATE, HIDDEN]
        yield f"{i}.up", [INTERMEDIATE, HIDDEN]
        yield f"{i}.down", [HIDDEN, INTERMEDIATE]
    yield "norm", [HIDDEN]
    yield "lm_head", [VOCAB, HIDDEN]


def initial():
    random, params = Random(1), {}
    for name, shape in shapes():
        size = torch.Size(shape).numel()
        values = torch.tensor([0.25 * random.signed() for _ in range(size)], dtype=torch.float64)
        if name.endswith("norm"):
            values = values + 1.0
        params[name] = values.reshape(shape).requires_grad_()
    return params


def rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def rotate(x):
    # [sequences, length, heads, head_dim], channels i and i + head_dim / 2 turn together.
    angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 1 / 128], dtype=x.dtype)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def loss_of(p, ids, targets):
    x = p["embed_tokens"][ids]
    rows = ids.shape[:2]
    for i in range(LAYERS):
        n = rms_norm(x, p[f"{i}.input_norm"])
        q = rotate((n @ p[f"{i}.q"].T).view(*rows, HEADS, HEAD_DIM)).transpose(1, 2)
        k = rotate((n @ p[f"{i}.k"].T).view(*rows, KV_HEADS, HEAD_DIM)).transpose(1, 2)
        v = (n @ p[f"{i}.v"].T).view(*rows, KV_HEADS, HEAD_DIM).transpose(1, 2)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        scores = q @ k.transpose(2, 3) * HEAD_DIM**-0.5
        future = torch.ones(rows[1], rows[1], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        x = x + mixed.transpose(1, 2).reshape(*rows, -1) @ p[f"{i}.o"].T
        n = rms_norm(x, p[f"{i}.post_norm"])
        x = x + (F.silu(n @ p[f"{i}.gate"].T) * (n @ p[f"{i}.up"].T)) @ p[f"{i}.down"].T
    logits = rms_norm(x, p["norm"]) @ p["lm_head"].T
    # The first token of a sequence does not count.
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), targets[:, 1:].flatten())


def main():
    torch.set_num_threads(1)
    params, random = initial(), Random(2)
    for _ in range(STEPS):
        starts = [random.bits() % (len(TEXT) - LENGTH) for _ in range(SEQUENCES)]
        ids = torch.tensor([list(TEXT[s : s + LENGTH]) for s in starts])
        targets = torch.tensor([list(TEXT[s + 1 : s + 1 + LENGTH]) for s in starts])
        loss = loss_of(params, ids, targets)
        loss.backward()
        with torch.no_grad():
            for param in params.values():
                param -= RATE * param.grad
                param.grad = None
        print(repr(loss.item()))


main()
