"""DeepSeek-V3's router on random logits.

Made with Python 3.11 and
    pip install mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 numpy==2.4.6
    python tests/golden/make/router.py tests/golden

mlx-lm chooses and weighs; experts are listed in ascending order with their weights.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from files import write
from mlx_lm.models.deepseek_v3 import group_expert_select

TOKENS, EXPERTS, GROUPS, KEPT, CHOICES, SCALING = 8, 32, 8, 3, 4, 2.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the fixtures")
    out = parser.parse_args().out
    mx.set_default_device(mx.cpu)

    rng = np.random.default_rng(3)
    logits = rng.normal(size=(TOKENS, EXPERTS)).astype(np.float32)
    bias = (0.1 * rng.normal(size=EXPERTS)).astype(np.float32)
    chosen, counts = group_expert_select(mx.array(logits), mx.array(bias), CHOICES, GROUPS, KEPT, SCALING, True)
    chosen, counts = np.array(chosen), np.array(counts)
    order = np.argsort(chosen, axis=-1)
    numbers = lambda x: [[float(str(v)) for v in row] for row in np.atleast_2d(x)]
    entry = {
        "logits": numbers(logits),
        "bias": numbers(bias)[0],
        "chosen": np.take_along_axis(chosen, order, -1).tolist(),
        "counts": numbers(np.take_along_axis(counts, order, -1)),
    }
    write(out / "router.json", json.dumps({"deepseek-v3": entry}) + "\n")


if __name__ == "__main__":
    main()
