"""Trains a Llama on random bytes and prints the seconds of each step."""
import json, sys, time
import torch
import torch.nn.functional as F

task = json.loads(sys.argv[1])
torch.set_num_threads(task["threads"])
torch.manual_seed(0)
H, I, L, N, V = (task[key] for key in ("hidden", "inner", "layers", "heads", "vocab"))
B, T, D, eps = task["sequences"], task["length"], H // N, task["eps"]
frequencies = task["rope_theta"] ** -(torch.arange(0, D, 2).float() / D)
angles = torch.arange(T).float()[:, None] * frequencies
cos, sin = (torch.cat([x, x], -1) for x in (angles.cos(), angles.sin()))
mask = torch.full((T, T), -torch.inf).triu(1)


def weight(*shape):
    return (torch.randn(*shape) * 0.02).requires_grad_()


embed, head, norm = weight(V, H), weight(V, H), torch.ones(H, requires_grad=True)
layers = [
    dict(qkv=weight(3 * H, H), o=weight(H, H), gate_up=weight(2 * I, H), down=weight(H, I),
         before=torch.ones(H, requires_grad=True), after=torch.ones(H, requires_grad=True))
    for _ in range(L)
]
parameters = [embed, head, norm] + [w for layer in layers for w in layer.values()]


def rms(x, w):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w


def rotate(x):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def forward(ids):
    x = embed[ids]
    for layer in layers:
        q, k, v = F.linear(rms(x, layer["before"]), layer["qkv"]).view(B, T, 3, N, D).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(rotate(q) * D**-0.5, rotate(k).transpose(2, 3)) + mask
        mixed = torch.matmul(scores.softmax(-1), v).transpose(1, 2).reshape(B, T, H)
        x = x + F.linear(mixed, layer["o"])
        gate, up = F.linear(rms(x, layer["after"]), layer["gate_up"]).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, layer["down"])
    return F.linear(rms(x, norm), head)


optimizer = torch.optim.AdamW(parameters, lr=task["learning_rate"])
for _ in range(task["steps"]):
    batch = torch.randint(V, (B, T + 1))
    begin = time.perf_counter()
    loss = F.cross_entropy(forward(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, task["clip"])
    optimizer.step()
    print(time.perf_counter() - begin, flush=True)
