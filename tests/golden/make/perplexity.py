"""Negative log-likelihoods of a text by mlx-lm, in windows as transformers has them, and by llama.cpp, as llama-perplexity has them.

Made with Python 3.11 and
    pip install mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 xllamacpp==2026.10.11549 numpy==2.4.6
    JACKFIELD_MODELS=models PYTHON=python3 cargo test --release -p jackfield-tests --test evaluate -- --ignored --nocapture

The test writes weights and ids and calls this script with a folder for mlx-lm, a GGUF file, and what to compute.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from llama_c import F32, Llama, log_softmax
from mlx_lm.utils import load_model


def sliding(folder, ids, length, stride):
    """"Perplexity of fixed-length models" of the documentation of transformers, with sums instead of means of means."""
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder))
    nll, count, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        target_length = end - previous_end
        window = ids[begin:end]
        labels = [-100] * (len(window) - target_length) + window[len(window) - target_length :]
        logits = np.array(model(mx.array([window]))[0].astype(mx.float32))
        logprobs = log_softmax(logits)
        for position, label in enumerate(labels[1:]):
            if label != -100:
                nll -= logprobs[position, label]
                count += 1
        previous_end = end
        if end == len(ids):
            break
    return nll, count


def halves(path, ids, length):
    """`perplexity` of llama.cpp's tools/perplexity, without its batching."""
    llama = Llama(path, context_size=length, cache_type=F32)
    nll, count, first = 0.0, 0, length // 2
    for start in range(0, len(ids) // length * length, length):
        llama.reset()
        logits = llama.decode(ids[start : start + length], first_output=first)
        logprobs = log_softmax(logits)
        for i in range(length - 1 - first):
            nll -= logprobs[i, ids[start + first + i + 1]]
            count += 1
    return nll, count


def main():
    folder, path, asked = sys.argv[1], Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
    ids, length = asked["ids"], asked["window"]
    said = {f"sliding {stride}": sliding(folder, ids, length, stride) for stride in asked["strides"]}
    said["halves"] = halves(path, ids, length)
    print(json.dumps({name: {"nll": nll, "tokens": count} for name, (nll, count) in said.items()}))


if __name__ == "__main__":
    main()
