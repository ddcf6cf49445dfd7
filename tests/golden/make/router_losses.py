"""Balance loss and z-loss of routers on random logits.

Made with Python 3.11 and
    pip install torch==2.15.0 transformers==5.23.0 numpy==2.4.6
    python tests/golden/make/router_losses.py plugin-api/tests/gradient

`balance` is `load_balancing_loss_func` of Mixtral over the number of choices (it sums shares of each choice, so that even load gives their
number), `z` is `router_z_loss_func` of SwitchTransformers; gradients are by the logits, in F64.
"""

import argparse
import json
from pathlib import Path

import torch
from files import write
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.models.switch_transformers.modeling_switch_transformers import router_z_loss_func

TOKENS, EXPERTS, CHOICES = 9, 5, 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the fixtures")
    out = parser.parse_args().out
    logits = torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(3)).double()
    # More of the first: load is not even.
    logits[:, 0] += 1.0
    logits.requires_grad_(True)
    balance = load_balancing_loss_func((logits,), EXPERTS, CHOICES) / CHOICES
    (of_balance,) = torch.autograd.grad(balance, logits)
    z = router_z_loss_func(logits[None])
    (of_z,) = torch.autograd.grad(z, logits)
    chosen = torch.topk(logits, CHOICES).indices
    entry = {
        "logits": logits.tolist(), "chosen": chosen.tolist(),
        "balance": balance.item(), "of_balance": of_balance.tolist(),
        "z": z.item(), "of_z": of_z.tolist(),
    }
    write(out / "router_losses.json", json.dumps({"losses": entry}) + "\n")


if __name__ == "__main__":
    main()
