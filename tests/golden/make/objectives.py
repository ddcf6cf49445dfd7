"""Losses of objectives and their gradients: plugins/objective/*/golden.txt.

Made with Debian's python3-torch (PyTorch 1.13.1), in F64 on the CPU, from the formulas in TRL 1.16.0 (dpo_trainer.py,
reward_trainer.py, grpo_trainer.py, distillation_trainer.py), written out here; label smoothing of DPO as in TRL 0.12:
    python3 tests/golden/make/objectives.py
"""

import pathlib

import torch
import torch.nn.functional as F

VOCAB, LENGTHS = 9, [2, 4, 1, 3]
torch.manual_seed(7)
row_sequence = torch.tensor([seq for seq, length in enumerate(LENGTHS) for _ in range(length)])
rows, seqs = len(row_sequence), len(LENGTHS)
real = lambda *shape: torch.randn(*shape, dtype=torch.float64).mul(1000).round().div(1000)
logits, teacher = real(rows, VOCAB), real(rows, VOCAB)
targets = torch.randint(0, VOCAB, (rows,))
token_mask = torch.ones(rows, dtype=torch.float64)
token_mask[[0, 3]] = 0
loss_weights = token_mask / token_mask.sum()
start = F.log_softmax(logits, -1)[torch.arange(rows), targets]
reference, old = ((start + real(rows) * scale).mul(1000).round() / 1000 for scale in (0.5, 0.2))
margins, rewards = real(seqs).abs(), real(seqs)
partner, group = torch.tensor([1, 0, 3, 2]), torch.tensor([0, 0, 0, 1])
last_row = torch.tensor(LENGTHS).cumsum(0) - 1
chosen, rejected = torch.tensor([0, 2]), torch.tensor([1, 3])
inputs = {
    "logits": logits, "targets": targets, "token_mask": token_mask, "loss_weights": loss_weights,
    "row_sequence": row_sequence, "last_row": last_row, "sequence_weights": torch.tensor([0.5, 0, 0.5, 0]),
    "partner": partner, "margins": margins, "reference_logprobs": reference, "old_logprobs": old,
    "rewards": rewards, "group": group, "teacher_logits": teacher,
}
GRPO = {"sequence_weights": torch.full((seqs,), 1 / seqs)}


def logprobs(x):
    return F.log_softmax(x, -1)[torch.arange(rows), targets]


def by_sequence(x):
    return torch.zeros(seqs, dtype=torch.float64).index_add(0, row_sequence, x * token_mask)


def dpo(loss, beta=0.5, smoothing=0.0):
    def of(x):
        scores = by_sequence(logprobs(x) - reference)
        delta = scores[chosen] - scores[rejected]
        if loss == "sigmoid":
            losses = -F.logsigmoid(beta * delta) * (1 - smoothing) - F.logsigmoid(-beta * delta) * smoothing
        elif loss == "hinge":
            losses = torch.relu(1 - beta * delta)
        else:
            means = scores / by_sequence(torch.ones(rows)).clamp(min=1)
            losses = (means[chosen] - means[rejected] - 1 / (2 * beta)) ** 2
        return losses.mean()
    return of


def reward(margin, centering):
    def of(x):
        r = x[last_row, 0]
        ahead = r[chosen] - r[rejected] - (margins[chosen] if margin else 0)
        return -F.logsigmoid(ahead).mean() + centering * ((r[chosen] + r[rejected]) ** 2).mean()
    return of


def advantages(scale):
    result = torch.zeros(seqs, dtype=torch.float64)
    for which in group.unique():
        of = rewards[group == which]
        deviation = of.std() if len(of) > 1 else 0.0
        result[group == which] = (of - of.mean()) / (deviation + 1e-4 if scale else 1.0)
    return result


def grpo(loss, epsilon=0.1, high=0.1, beta=0.0, length=0):
    def of(x):
        per_token = logprobs(x)
        a = advantages(loss != "dr")[row_sequence]
        ratio = torch.exp(per_token - old)
        losses = -torch.min(ratio * a, torch.clamp(ratio, 1 - epsilon, 1 + high) * a)
        losses = losses + beta * (torch.exp(reference - per_token) - (reference - per_token) - 1)
        if loss == "grpo":
            return (by_sequence(losses) / by_sequence(torch.ones(rows)).clamp(min=1)).mean()
        if loss == "dapo":
            return (losses * token_mask).sum() / token_mask.sum()
        return (losses * token_mask).sum() / (seqs * length)
    return of


def distill(reverse, temperature=1.0, alpha=0.0):
    def of(x):
        s, t = F.log_softmax(x / temperature, -1), F.log_softmax(teacher / temperature, -1)
        p, q = (s, t) if reverse else (t, s)
        kl = F.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        losses = (1 - alpha) * temperature**2 * kl - alpha * logprobs(x)
        return (losses * token_mask).sum() / token_mask.sum()
    return of


def line(name, x):
    return " ".join([name, *(repr(y) for y in torch.as_tensor(x).flatten().tolist())])


def write(plugin, cases, more={}):
    lines = [line(name, x) for name, x in {**inputs, **more}.items()]
    for name, loss in cases.items():
        x = logits.clone().requires_grad_()
        value = loss(x)
        value.backward()
        lines += [line(f"{name}.loss", value.detach()), line(f"{name}.gradient", x.grad)]
    folder = pathlib.Path(__file__).resolve().parents[3] / "plugins/objective" / plugin
    (folder / "golden.txt").write_text("\n".join(lines) + "\n")


write("dpo", {
    "dpo_sigmoid": dpo("sigmoid"), "dpo_smoothed": dpo("sigmoid", smoothing=0.2),
    "dpo_hinge": dpo("hinge"), "dpo_ipo": dpo("ipo")})
write("reward-model", {"reward_plain": reward(False, 0.0), "reward_margin": reward(True, 0.01)})
write("grpo", {
    "grpo_grpo": grpo("grpo", beta=0.04), "grpo_dapo": grpo("dapo", high=0.28), "grpo_dr": grpo("dr", length=5)}, GRPO)
write("distill", {
    "distill_forward": distill(False), "distill_reverse": distill(True, 2.0), "distill_mixed": distill(False, 3.0, 0.3)})
