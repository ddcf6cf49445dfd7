"""Groups of 4-bit codes and blocks of 8-bit floats as torchao chooses them.

Made with Python 3.11 and
    pip install torch==2.15.0 torchao==0.18.0 numpy==2.4.6
    python tests/golden/make/torchao_blocks.py tests/golden

`int4_g*`: asymmetric with a minimum in place of a zero point (torchao's own for weights, `tinygemm`), and symmetric with codes from -7 to 7;
`code` is from 0, `deq` by torchao. `e4m3` and `e5m2`: `code` is the byte. Scales stay F32, as torchao has them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from files import write
from torchao.quantization import quant_primitives as q

BITS = (0, 15)


def numbers(x):
    return [float(v) for v in x.double().flatten().tolist()]


def groups(x, group):
    shape, size = x.reshape(-1, group), (1, group)
    entries = {}
    asymmetric = q.MappingType.ASYMMETRIC
    scale, zero = q._choose_qparams_affine_tinygemm(shape, asymmetric, size, torch.int32, *BITS, scale_dtype=torch.float32, zero_point_dtype=torch.float32)
    code = q._quantize_affine_tinygemm(shape, size, scale, zero, torch.int32, *BITS)
    deq = q._dequantize_affine_tinygemm(code, size, scale, zero, torch.int32, *BITS)
    entries[f"int4_g{group}"] = {"x": numbers(x), "scale": numbers(scale), "code": code.flatten().tolist(), "deq": numbers(deq)}
    scale, zero = q.choose_qparams_affine(shape, q.MappingType.SYMMETRIC, size, torch.int32, -7, 7, scale_dtype=torch.float32)
    code = q.quantize_affine(shape, size, scale, zero, torch.int32, -7, 7)
    deq = q.dequantize_affine(code, size, scale, zero, torch.int32, -7, 7)
    entries[f"int4_g{group}_sym"] = {"x": numbers(x), "scale": numbers(scale), "code": (code + 8).flatten().tolist(), "deq": numbers(deq)}
    return entries


def floats(x, block, dtype):
    shape = x.reshape(-1, block)
    scale = q._choose_scale_float8(shape, [1, block], dtype)
    made = q._quantize_affine_float8(shape, scale, dtype)
    deq = q._dequantize_affine_float8(made, scale)
    return {"x": numbers(x), "scale": numbers(scale), "code": made.view(torch.uint8).flatten().tolist(), "deq": numbers(deq)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the fixtures")
    out = parser.parse_args().out
    random = np.random.default_rng(11)
    x = torch.tensor((random.normal(size=256) * 0.02).astype(np.float32))
    entries = groups(x, 32) | groups(x, 128)
    entries["e4m3"] = floats(x, 32, torch.float8_e4m3fn)
    entries["e5m2"] = floats(x, 32, torch.float8_e5m2)
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()]
    write(out / "torchao_blocks.json", "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
