"""What llama.cpp and mlx-lm say of models that Jackfield has written: logits, greedy tokens, ids of a text.

Made with Python 3.11 and
    pip install mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 xllamacpp==2026.10.11549 numpy==2.4.6
    BLESS=1 PYTHON=python3 cargo test -p jackfield-tests --test export -- --ignored llama_cpp_and_mlx

The test writes the models and calls this script with their folder: `*.gguf` are read by llama.cpp, folders by mlx-lm.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
from llama_c import F32, Llama
from mlx_lm.models.cache import make_prompt_cache


def by_llama_cpp(path, asked):
    llama = Llama(path, context_size=128, cache_type=F32)
    ids = llama.tokenize(asked["text"], add_special=False, parse_special=True)
    return run(lambda tokens: llama.decode(tokens)[-1], asked) | {"ids": ids}


def by_mlx(path, asked):
    mx.set_default_device(mx.cpu)
    model, tokenizer = mlx_lm.load(str(path))
    cache = make_prompt_cache(model)
    step = lambda tokens: np.array(model(mx.array([tokens]), cache=cache)[0, -1].astype(mx.float32))
    ids = tokenizer.encode(asked["text"], add_special_tokens=False)
    return run(step, asked) | {"ids": ids}


def run(step, asked):
    logits = first = step(asked["prompt"])
    greedy = []
    for _ in range(asked["greedy"]):
        greedy.append(int(logits.argmax()))
        logits = step([greedy[-1]])
    return {"logits": [float(str(x)) for x in first.astype(np.float32)], "greedy": greedy}


def main():
    folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    said = {}
    for path in sorted(folder.iterdir()):
        said[path.name] = (by_llama_cpp if path.suffix == ".gguf" else by_mlx)(path, asked)
    entries = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in said.items())
    print("{\n" + entries + "\n}")


if __name__ == "__main__":
    main()
