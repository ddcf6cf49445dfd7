"""Blocks of the GGUF formats with the values they stand for, and the RoPE frequencies of Llama 3.1 and YaRN.

Made with Python 3.11 and
    pip install gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0
    python tests/golden/make/vectors.py tests/golden/vectors.json

Entries already in the file are kept and checked: `bytes` has to be what the gguf package makes of `x`, `deq` what it makes
of `bytes`. Formats that are missing are added, with seeded values. The gguf package cannot quantize the K formats: for
those the bytes are random, with scales that keep the values near 1.
"""

import json
import sys
from pathlib import Path

import numpy as np
from files import write_entries
from gguf import GGMLQuantizationType as Type
from gguf import dequantize, quantize

NAMES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
NUM_ROWS = 2


def add_quantized(rng, kind):
    x = rng.standard_normal((NUM_ROWS, 32)).astype(np.float32)
    blocks = quantize(x, kind)
    return {"x": x.tolist(), "bytes": blocks.tolist(), "deq": dequantize(blocks, kind).tolist()}


def add_q5_k(rng):
    """Q5_K: d, dmin (F16), 12 bytes of 6-bit scales and minima, 32 of high bits, 128 of low bits: 256 values."""
    blocks = rng.integers(0, 256, (NUM_ROWS, 176)).astype(np.uint8)
    blocks[:, 0:2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    blocks[:, 2:4] = np.frombuffer(np.float16(0.02).tobytes(), np.uint8)
    return {"bytes": blocks.tolist(), "deq": dequantize(blocks, Type.Q5_K).tolist()}


def llama3_inv_freq(theta, dim, factor, low, high, orig):
    inv_freq = theta ** (-np.arange(0, dim, 2) / dim)
    wavelength = 2 * np.pi / inv_freq
    smooth = (orig / wavelength - low) / (high - low)
    return inv_freq * ((1 - smooth.clip(0, 1)) / factor + smooth.clip(0, 1))


def yarn_inv_freq(entry):
    half, factor = entry["dim"] // 2, entry["factor"]
    inv_freq = entry["theta"] ** (-np.arange(half) / half)
    slow = ((np.arange(half) - entry["low"]) / (entry["high"] - entry["low"])).clip(0, 1)
    return inv_freq * (1 - slow) + inv_freq / factor * slow


def check_mxfp4(name, entry):
    """torchao 0.18.0: a scale and 16 bytes, even elements in low nibbles; ties to the even code."""
    x = np.array(entry["x"], np.float32)
    peak = np.abs(x).max(1)
    if name == "mxfp4_rceil":
        scale = np.ceil(np.log2(peak / 6, where=peak > 0, out=np.full_like(peak, -127))).astype(int) + 127
    else:
        peak = peak.view(np.uint32) + (1 << 21 if name == "mxfp4_even" else 0)
        scale = np.maximum((peak >> 23).astype(int) - 2, 0)
    assert (scale == np.array(entry["scale_e8m0"])).all(), name
    packed = np.array(entry["packed_lo_first"], np.uint8)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(x.shape)
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    units = np.ldexp(x.astype(np.float64), 127 - scale[:, None]).clip(-6, 6)
    assert ((codes >> 3 == 1) == np.signbit(x)).all(), name
    distance = np.abs(np.abs(units) - values[codes & 7])
    assert (distance == np.abs(np.abs(units)[..., None] - values).min(-1)).all(), name


def check_router(entry):
    """DeepSeek-V3: sigmoids with a bias; the best groups by the sum of their two best; weights without the bias."""
    scores = 1 / (1 + np.exp(-np.array(entry["logits"])))
    biased = scores + np.array(entry["bias"])
    rows = np.arange(len(scores))[:, None]
    groups = biased.reshape(len(scores), entry["n_group"], -1)
    best = np.argsort(-np.sort(groups)[..., -2:].sum(-1))[:, : entry["topk_group"]]
    mask = np.full(groups.shape[:2], -np.inf)
    mask[rows, best] = 0
    allowed = (groups + mask[..., None]).reshape(biased.shape)
    chosen = np.sort(np.argsort(-allowed)[:, : entry["top_k"]])
    assert (chosen == np.array(entry["idx_sorted"])).all()
    weights = scores[rows, chosen]
    weights = weights / weights.sum(1, keepdims=True) * entry["scale"]
    np.testing.assert_allclose(weights, entry["w"], rtol=1e-12)


def check_scan(entry):
    """Mamba, channel by channel: softplus of the step, decay, what is taken in, what is read, skip and gate."""
    u, dt, A, B, C, D, z, bias = (np.array(entry[key]) for key in ["u", "dt", "A", "B", "C", "D", "z", "dt_bias"])
    h, y = np.zeros(A.shape), []
    for t in range(u.shape[1]):
        step = np.log1p(np.exp(dt[:, t] + bias))
        h = np.exp(step[:, None] * A) * h + (step * u[:, t])[:, None] * B[:, t]
        y.append(h @ C[:, t] + D * u[:, t])
    np.testing.assert_allclose(np.stack(y, 1) * z / (1 + np.exp(-z)), entry["y"], rtol=1e-12)


def check(name, entry):
    if name == "dsv3_router":
        check_router(entry)
        return
    if name == "mamba1_scan":
        check_scan(entry)
        return
    if name == "llama4_temp":
        scale = 1 + 0.1 * np.log((np.array(entry["pos"]) + 1) // 8192 + 1)
        np.testing.assert_allclose(scale, entry["scale"], rtol=1e-12)
        return
    if name == "llama3_8x":
        parameters = {key: value for key, value in entry.items() if key != "inv_freq"}
        np.testing.assert_allclose(llama3_inv_freq(**parameters), entry["inv_freq"], rtol=1e-6)
        return
    if name.startswith("yarn_"):
        np.testing.assert_allclose(yarn_inv_freq(entry), entry["inv_freq"], rtol=1e-6)
        return
    if name.startswith("mxfp4_"):
        check_mxfp4(name, entry)
        return
    kind = Type[name.removeprefix("gguf_").upper()]
    blocks = np.array(entry["bytes"], np.uint8)
    if "x" in entry:
        assert (quantize(np.array(entry["x"], np.float32), kind) == blocks).all(), name
    assert (dequantize(blocks, kind) == np.array(entry["deq"], np.float32)).all(), name


def main():
    path = Path(sys.argv[1])
    entries = json.loads(path.read_text()) if path.exists() else {}
    for i, name in enumerate(NAMES):
        rng = np.random.default_rng(20261121 + i)
        if f"gguf_{name}" not in entries:
            entries[f"gguf_{name}"] = add_q5_k(rng) if name == "Q5_K" else add_quantized(rng, Type[name])
    for name, entry in entries.items():
        check(name, entry)
        print(name, "agrees with the gguf package" if name.startswith("gguf_") else "agrees with its formula")
    write_entries(path, entries)


if __name__ == "__main__":
    main()
