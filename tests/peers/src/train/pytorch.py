"""Trains a Llama: on random bytes, to print the seconds of each step, or, if the task has a folder, on its text, to
print losses. Its first weights then lie there as `model.safetensors`."""
import json, pathlib, struct, sys, time
import torch
import torch.nn.functional as F

task = json.loads(sys.argv[1])
torch.set_num_threads(task["threads"])
torch.manual_seed(task.get("seed", 0))
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


def named():
    """Names of Hugging Face, and what they name."""
    yield from (("model.embed_tokens.weight", embed), ("lm_head.weight", head), ("model.norm.weight", norm))
    for i, layer in enumerate(layers):
        scope = f"model.layers.{i}."
        for name, w in zip("qkv", layer["qkv"].chunk(3)):
            yield f"{scope}self_attn.{name}_proj.weight", w
        for name, w in zip(("gate", "up"), layer["gate_up"].chunk(2)):
            yield f"{scope}mlp.{name}_proj.weight", w
        yield scope + "self_attn.o_proj.weight", layer["o"]
        yield scope + "mlp.down_proj.weight", layer["down"]
        yield scope + "input_layernorm.weight", layer["before"]
        yield scope + "post_attention_layernorm.weight", layer["after"]


def save(path):
    header, body = {}, b""
    for name, w in named():
        data = w.detach().contiguous().numpy().tobytes()
        header[name] = dict(dtype="F32", shape=list(w.shape), data_offsets=[len(body), len(body) + len(data)])
        body += data
    header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)


def mixed(state):
    """SplitMix64."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    x = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return state, x ^ (x >> 31)


def sequences(text, seed):
    """Epoch after epoch, each in the order that `jackfield train` gives it."""
    count, epoch = (len(text) - 1) // T, 0
    while True:
        state, order = seed + epoch, list(range(count))
        for last in range(count - 1, 0, -1):
            state, drawn = mixed(state)
            at = drawn % (last + 1)
            order[last], order[at] = order[at], order[last]
        for at in order:
            yield list(text[at * T : (at + 1) * T + 1])
        epoch += 1


def loss_of(batch):
    return F.cross_entropy(forward(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


optimizer = torch.optim.AdamW(parameters, lr=task["learning_rate"])


def step(batch):
    loss = loss_of(batch)
    optimizer.zero_grad()
    loss.backward()
    if "clip" in task:
        torch.nn.utils.clip_grad_norm_(parameters, task["clip"])
    optimizer.step()
    return loss.item()


if "folder" not in task:
    for _ in range(task["steps"]):
        batch = torch.randint(V, (B, T + 1))
        begin = time.perf_counter()
        step(batch)
        print(time.perf_counter() - begin, flush=True)
else:
    folder = pathlib.Path(task["folder"])
    save(folder / "model.safetensors")
    text, held_out = ((folder / name).read_bytes() for name in ("text", "held-out"))
    source = sequences(text, task["seed"])
    for _ in range(task["steps"]):
        print(step(torch.tensor([next(source) for _ in range(B)])), flush=True)
    with torch.no_grad():
        rows = torch.tensor([list(held_out[at : at + T + 1]) for at in range(0, len(held_out) - T, T)])
        rows = rows[: len(rows) // B * B].split(B)
        print(sum(loss_of(batch).item() for batch in rows) / len(rows))
