"""Keys and values as 8-bit codes, by numpy in float32: `kv_codes.json`.

Made with Python 3.11 and
    pip install numpy==2.4.6
    python tests/golden/make/kv_codes.py tests/golden

A case is one token of `heads` vectors: `x`, the bits of `scales` (f16, one for each vector; or `channel_scales`, f32, given),
`codes` (i8), and for each vector its `error`, the share that codes leave, and its patch: bits of a f16 scale and bytes.
"""

import json
import sys
from pathlib import Path

import numpy as np

f32 = np.float32


def encode(x, scale, most):
    if np.ndim(scale) == 0 and scale == 0:
        return np.zeros(len(x), np.int8)
    return np.rint(np.clip((x / scale).astype(f32), f32(-most), f32(most))).astype(np.int8)


def half(x):
    scale = np.float16(x)
    return f32(scale), int(np.frombuffer(scale.tobytes(), np.uint16)[0])


def vector(x, channel_scales=None):
    scale, bits = half(np.max(np.abs(x)) / f32(127)) if channel_scales is None else (channel_scales, None)
    codes = encode(x, scale, 127)
    left = (x - (codes.astype(f32) * scale).astype(f32)).astype(f32)
    lost, whole = f32(0), f32(0)
    for a, b in zip(left, x):
        lost, whole = f32(lost + f32(a * a)), f32(whole + f32(b * b))
    patch_scale, patch_bits = half(np.max(np.abs(left)) / f32(7))
    nibbles = [int(code) + 8 for code in encode(left, patch_scale, 7)]
    nibbles += [8] * (len(nibbles) % 2)
    patch = [low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2])]
    error = float(np.sqrt(lost / whole)) if whole else 0.0
    return {"scale": bits, "codes": codes.tolist(), "error": error, "patch_scale": patch_bits, "patch": patch}


def main():
    rng = np.random.default_rng(20240131)
    cases = []
    for heads, length, outlier, factor in [
        (2, 16, 1, 1), (3, 64, 30, 1), (1, 7, 9, 1), (2, 8, 1, 1e-6), (1, 128, 1, 1e4), (1, 8, 1, 0), (4, 1, 1, 1),
    ]:
        x = rng.standard_normal((heads, length))
        x[:, length // 2] *= outlier
        x = (x * factor).astype(f32)
        channels = (np.abs(rng.standard_normal((heads, length))) * 0.01 + 0.008).astype(f32)
        for scales in [None, channels]:
            rows = [vector(row, None if scales is None else scales[i]) for i, row in enumerate(x)]
            cases.append({
                "heads": heads,
                "x": [float(n) for n in x.flat],
                "channel_scales": None if scales is None else [float(n) for n in scales.flat],
                "vectors": rows,
            })
    text = json.dumps({"cases": cases}, separators=(",", ":"))
    (Path(sys.argv[1]) / "kv_codes.json").write_text(text + "\n")


main()
