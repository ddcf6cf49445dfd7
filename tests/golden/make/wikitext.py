"""Negative log-likelihoods of 16 windows of WikiText-2 (test), from llama.cpp's raw logits.

Made with Python 3.11 and, for each of the three models,
    pip install xllamacpp==2026.10.11549 safetensors==0.8.0 numpy==2.4.6 gguf==0.19.0
    python tests/golden/make/wikitext.py smollm2 MODEL.gguf MODEL.f32.gguf wikitext2_test.txt tests/golden/llama_cpp

The text is tokenized in one piece and cut into windows of 512 tokens. Where the model adds a BOS (Gemma), the text is
tokenized without it and token 0 of every window is replaced by it. Each window starts from an empty cache.
Positions 255 to 510 predict tokens 256 to 511; only those 256 predictions are scored.
MODEL.f32.gguf comes from dequantize.py.
"""

import argparse
from pathlib import Path

import numpy as np
from files import write_tensors
from llama_c import F32, PACKAGE, SETTINGS, Llama, log_softmax

NUM_WINDOWS, WINDOW, FIRST_SCORED = 16, 512, 256
TEXT_CHARS = 60_000  # more than 16 windows of any of the tokenizers


def window_nll(llama, window):
    llama.reset()
    logprobs = log_softmax(llama.decode(window, first_output=FIRST_SCORED - 1)[:-1])
    return -logprobs[np.arange(WINDOW - FIRST_SCORED), window[FIRST_SCORED:]].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("gguf_f32", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    llama = Llama(args.gguf)
    ids = llama.tokenize(args.text.read_text()[:TEXT_CHARS], add_special=False, parse_special=False)
    windows = np.array(ids[: NUM_WINDOWS * WINDOW], np.uint32).reshape(NUM_WINDOWS, WINDOW)
    if llama.add_bos:
        windows[:, 0] = llama.bos
    nll = np.array([window_nll(llama, window) for window in windows])
    exact = Llama(args.gguf_f32, cache_type=F32)
    exact_nll = np.array([window_nll(exact, window) for window in windows])
    perplexity, exact_perplexity = np.exp(nll.mean()), np.exp(exact_nll.mean())
    print(f"{args.model}: perplexity {perplexity:.4f}, with F32 activations {exact_perplexity:.4f}, "
          f"largest difference of a window's mean {np.abs(nll - exact_nll).max():.4f}")
    write_tensors(args.out / f"{args.model}.wikitext.safetensors", {
        "windows": windows,
        "nll": nll,
        "exact_nll": exact_nll,
        "perplexity": np.array([perplexity]),
        "exact_perplexity": np.array([exact_perplexity]),
    }, {
        "made_with": PACKAGE,
        "settings": SETTINGS,
        "kv_cache": "F16; exact_*: F32",
        "file": args.gguf.name,
        "bos": f"token 0 of every window replaced by {llama.bos}" if llama.add_bos else "none",
        "scored": "targets 256..511 of every window",
        "text": f"first {TEXT_CHARS} characters, tokenized in one piece, specials not parsed",
    })


if __name__ == "__main__":
    main()
