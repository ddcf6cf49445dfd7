"""Steps of optimizers and schedules: the constants in the tests of plugins/optimizer and plugins/lr-schedule.

Made with Debian's python3-torch (PyTorch 1.13.1), in F64 on the CPU; Muon by the functions in torch/optim/_muon.py
of PyTorch 2.9.1, out of its wheel, whose cast to BF16 is left out:
    python3 tests/golden/make/optimizers.py _muon.py
"""

import ast
import math
import sys
from typing import Optional

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

START = [1.0, -0.5, 0.25, 2.0]
GRADIENTS = [[0.5, -1.0, 0.0, 2.0], [-0.25, 0.75, 1.0, 1.0], [1.5, 0.5, -2.0, 0.0]]


def steps(name, make):
    param = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = make([param])
    for gradient in GRADIENTS:
        param.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    print(f"    const {name}: [f64; 4] = [{', '.join(repr(x) for x in param.tolist())}];")


def cosine(warmup, length, floor):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = CosineAnnealingLR(optimizer, T_max=length, eta_min=floor)
    factors = [(step + 1) / warmup for step in range(warmup)]
    for _ in range(length + 1):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    print(f"    const COSINE: [f64; {len(factors)}] = [{', '.join(repr(x) for x in factors)}];")


def muon(name, shape, count, **options):
    tree = ast.parse(open(sys.argv[1]).read())
    wanted = ("_zeropower_via_newtonschulz", "_adjust_lr", "_single_tensor_muon")
    tree.body = [node for node in tree.body if getattr(node, "name", "") in wanted]
    scope = {"torch": torch, "math": math, "Tensor": Tensor, "Optional": Optional, "_to_scalar": lambda x: x}
    exec(compile(tree, sys.argv[1], "exec"), scope)
    Tensor.bfloat16 = lambda x: x.clone()
    param = torch.tensor(MATRIX_START[:count], dtype=torch.float64).reshape(shape)
    buffer = torch.zeros_like(param)
    for gradient in MATRIX_GRADIENTS:
        gradient = torch.tensor(gradient[:count], dtype=torch.float64).reshape(shape)
        scope["_single_tensor_muon"](
            [param], [gradient], [buffer], lr=0.1, momentum=0.95, ns_coefficients=(3.4445, -4.7750, 2.0315),
            ns_steps=5, eps=1e-7, has_complex=False, **options)
    print(f"    const {name}: [f64; {count}] = [{', '.join(repr(x) for x in param.flatten().tolist())}];")


MATRIX_START = [1.0, -0.5, 0.25, 2.0, -1.5, 0.75]
MATRIX_GRADIENTS = [
    [0.5, -1.0, 0.0, 2.0, 0.25, -0.5],
    [-0.25, 0.75, 1.0, 1.0, -1.5, 0.5],
    [1.5, 0.5, -2.0, 0.0, 1.0, 0.25],
]
steps("SGD_PLAIN", lambda p: torch.optim.SGD(p, lr=0.1))
steps("SGD_NESTEROV", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True))
steps("SGD_DECAY", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1))
steps("ADAMW_DEFAULT", lambda p: torch.optim.AdamW(p, lr=0.1))
steps("ADAMW_OTHER", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.5))
cosine(4, 12, 0.1)
muon("MUON_WIDE", [2, 3], 6, nesterov=True, weight_decay=0.1, adjust_lr_fn=None)
muon("MUON_TALL", [3, 2], 6, nesterov=False, weight_decay=0.0, adjust_lr_fn=None)
muon("MUON_MATCHED", [3, 2], 6, nesterov=True, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
START, GRADIENTS = MATRIX_START[:4], [gradient[:4] for gradient in MATRIX_GRADIENTS]
steps("ADAMW", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.95), weight_decay=0.1))
