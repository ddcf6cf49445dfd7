"""Blocks of formats that GGUF has no number for: floats of 8 bits by ml_dtypes, groups of 4-bit and 8-bit codes by numpy.

Made with Python 3.11 and
    pip install numpy==2.4.6 ml_dtypes==0.6.0
    python3 tests/golden/make/quantizers.py > tests/golden/quantizers.json
"""

import json
import struct

import ml_dtypes
import numpy as np

FLOATS = {"e4m3": (ml_dtypes.float8_e4m3fn, 448.0), "e5m2": (ml_dtypes.float8_e5m2, 57344.0)}
BLOCK = 32


def listed(x):
    return [float(str(v)) for v in np.asarray(x, np.float32).ravel()]


def exact(x):
    return np.asarray(x, np.float32).ravel().astype(np.float64).tolist()


def cast(x, dtype, most):
    return np.clip(x, -most, most).astype(np.float32).astype(dtype)


def codes(dtype, most):
    every = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    finite = np.isfinite(every)
    return {"code": np.arange(256)[finite].tolist(), "value": exact(every[finite])}


def between(dtype, most, random):
    spread = random.uniform(-1, 1, 400) * 2.0 ** random.integers(-20, 17, 400)
    values = np.unique(np.abs(np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)))
    values = values[np.isfinite(values)]
    middles = (values[1:] + values[:-1]) / 2  # ties
    x = np.concatenate([spread, middles, -middles]).astype(np.float32)
    return {"x": listed(x), "code": cast(x, dtype, most).view(np.uint8).tolist()}


def blocks_of_floats(x, dtype, most, is_log2):
    data, back = bytearray(), []
    for block in x.reshape(-1, BLOCK):
        scale = np.float32(np.abs(block).max() / np.float32(most))
        if is_log2:
            scale = np.float32(2.0 ** np.ceil(np.log2(scale)))
        made = cast(block / scale, dtype, most)
        data += struct.pack("<f", scale) + made.view(np.uint8).tobytes()
        back.append(made.astype(np.float32) * scale)
    return {"x": listed(x), "bytes": list(data), "deq": exact(np.concatenate(back))}


def nibbles(codes):
    low, high = codes[: len(codes) // 2], codes[len(codes) // 2 :]
    return (low | high << 4).astype(np.uint8).tobytes()


def groups_of_codes(x, group, is_symmetric):
    data, back = bytearray(), []
    for part in x.reshape(-1, group):
        least, most = np.float32(min(part.min(), 0)), np.float32(max(part.max(), 0))
        if is_symmetric:
            scale = np.float32(max(most, -least) / np.float32(7))
            code = np.clip(np.round(part * (np.float32(1) / scale)), -7, 7).astype(np.int32) + 8
            data += np.float16(scale).tobytes() + nibbles(code)
            back.append(np.float32(np.float16(scale)) * (code - 8).astype(np.float32))
        else:
            scale = np.float32((most - least) / np.float32(15))
            code = np.clip(np.round((part - least) * (np.float32(1) / scale)), 0, 15).astype(np.int32)
            data += np.float16(scale).tobytes() + np.float16(least).tobytes() + nibbles(code)
            back.append(np.float32(np.float16(scale)) * code.astype(np.float32) + np.float32(np.float16(least)))
    return {"x": listed(x), "bytes": list(data), "deq": exact(np.concatenate(back))}


def codes_of_rows(x, block):
    parts = x.reshape(-1, block)
    scale = (np.abs(parts).max(axis=1) / np.float32(127)).astype(np.float32)
    by = (np.float32(1) / scale).astype(np.float32)
    return scale, np.clip(np.round(parts * by[:, None]), -127, 127).astype(np.int8)


def blocks_of_codes(x, block):
    scale, code = codes_of_rows(x, block)
    data = b"".join(struct.pack("<f", s) + c.tobytes() for s, c in zip(scale, code))
    return {"x": listed(x), "bytes": list(data), "deq": exact(scale[:, None] * code.astype(np.float32))}


def product(random):
    x = random.standard_normal((3, 256)).astype(np.float32)
    w = random.standard_normal((5, 256)).astype(np.float32)
    (xs, xc), (ws, wc) = codes_of_rows(x, 256), codes_of_rows(w, 256)
    y = (xc.astype(np.int32) @ wc.astype(np.int32).T).astype(np.float32) * xs[:, None] * ws[None, :]
    return {"x": listed(x), "w": listed(w), "y": listed(y)}


def main():
    random = np.random.default_rng(11)
    said = {}
    for name, (dtype, most) in FLOATS.items():
        suffix = "fn" if name == "e4m3" else ""
        said[f"decode_{name}{suffix}"] = codes(dtype, most)
        said[f"encode_{name}{suffix}"] = between(dtype, most, random)
    x = (random.standard_normal(4 * BLOCK) * np.repeat([1, 0.01, 300, 5], BLOCK)).astype(np.float32)
    for name, (dtype, most) in FLOATS.items():
        said[f"fp8_{name}"] = blocks_of_floats(x, dtype, most, False)
    said["fp8_e4m3_log2"] = blocks_of_floats(x, *FLOATS["e4m3"], True)
    x = (random.standard_normal(256) * np.repeat([1, 0.02], 128) + 0.1).astype(np.float32)
    for group in [32, 128]:
        said[f"int4_g{group}"] = groups_of_codes(x, group, False)
        said[f"int4_g{group}_sym"] = groups_of_codes(x, group, True)
    for block in [64, 256]:
        said[f"int8_b{block}"] = blocks_of_codes(x, block)
    said["w8a8_product"] = product(random)
    entries = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in said.items())
    print("{\n" + entries + "\n}")


if __name__ == "__main__":
    main()
