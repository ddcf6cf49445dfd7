"""Steps of optimizers and schedules: the constants in the tests of plugins/optimizer and plugins/lr-schedule.

Made with Debian's python3-torch (PyTorch 1.13.1), in F64 on the CPU:
    python3 tests/golden/make/optimizers.py
"""

import torch
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


steps("SGD_PLAIN", lambda p: torch.optim.SGD(p, lr=0.1))
steps("SGD_NESTEROV", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True))
steps("SGD_DECAY", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1))
steps("ADAMW_DEFAULT", lambda p: torch.optim.AdamW(p, lr=0.1))
steps("ADAMW_OTHER", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.5))
cosine(4, 12, 0.1)
