"""Greedy completions with the 64 most probable tokens of every position, from llama.cpp's raw logits.

Made with Python 3.11 and, for each of the three models (`smollm2`, `gemma3`, `qwen2`; files in README.md),
    pip install xllamacpp==2026.10.11549 safetensors==0.8.0 numpy==2.4.6 gguf==0.19.0
    python tests/golden/make/dequantize.py MODEL.gguf MODEL.f32.gguf
    python tests/golden/make/completions.py smollm2 MODEL.gguf MODEL.f32.gguf tinyshakespeare.txt tests/golden/llama_cpp
"""

import argparse
from pathlib import Path

import numpy as np
from files import write_entries, write_tensors
from llama_c import F32, PACKAGE, SETTINGS, Llama, log_softmax

NUM_TOKENS = 64
NUM_TOP = 64
LONG_PROMPT_CHARS = 5300
ALL = ["smollm2", "gemma3", "qwen2"]

PROMPTS = {
    "p00": (ALL, "The capital of France is"),
    "p01": (["smollm2"], (
        "The lighthouse keeper had counted the steps every evening for thirty years: one hundred and ninety-nine. "
        "Tonight, for the first time, there were two hundred. He stood still, put down the lamp, and"
    )),
    "p02": (ALL, (
        "def binary_search(items, target):\n"
        '    """Return the index of target in the sorted list items, or -1."""\n'
        "    low, high = 0, len(items) - 1\n"
    )),
    "p03": (["smollm2"], (
        "use std::collections::HashMap;\n\n/// Counts how often each word occurs.\n"
        "fn count_words(text: &str) -> HashMap<String, usize> {\n\tlet mut counts = HashMap::new();\n"
    )),
    "p04": (ALL, "电话交换机的工作原理很简单：每一条线路都有一个插孔，接线员"),
    "p05": (ALL, None),  # the beginning of the Shakespeare file
    "p06": (["smollm2"], (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n"
    )),
    "p07": (["smollm2"], (
        "<|im_start|>system\nYou answer in one short sentence.<|im_end|>\n"
        "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\nBlue.<|im_end|>\n"
        "<|im_start|>user\nName another, and a thing that has it.<|im_end|>\n<|im_start|>assistant\n"
    )),
    "p08": (ALL, (
        '{"name": "Ada Lovelace", "born": 1815, "died": 1852, "fields": ["mathematics", "computing"]}\n'
        '{"name": "Alan Turing", "born": 1912, "died": 1954, "fields":'
    )),
    "p09": (["smollm2"], "| Planet | Moons |\n|---|---|\n| Mercury | 0 |\n| Venus | 0 |\n| Earth | 1 |\n| Mars |"),
    "p10": (ALL, "Le téléphone a été inventé à la fin du XIXᵉ siècle. — Où ça ? 📞 Aujourd’hui,"),
    "p11": (["smollm2"], (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWrite a Python function that reverses a string.<|im_end|>\n<|im_start|>assistant\n"
    )),
}


def complete(llama, prompt):
    """Greedy tokens and the logits each was taken from. Ends of text are not banned and do not stop it."""
    llama.reset()
    logits, tokens = [llama.decode(prompt)[0]], []
    while True:
        tokens.append(int(logits[-1].argmax()))
        if len(tokens) == NUM_TOKENS:
            return tokens, np.stack(logits)
        logits.append(llama.decode(tokens[-1:])[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=ALL)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("gguf_f32", type=Path)
    parser.add_argument("shakespeare", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    long_prompt = args.shakespeare.read_text()[:LONG_PROMPT_CHARS]
    prompts = {key: {"models": models, "text": text or long_prompt} for key, (models, text) in PROMPTS.items()}
    write_entries(args.out / "prompts.json", prompts)

    llama, tensors, notes = Llama(args.gguf), {}, []
    for key, prompt in prompts.items():
        if args.model not in prompt["models"]:
            continue
        ids = llama.tokenize(prompt["text"], add_special=True, parse_special=True)
        tokens, logits = complete(llama, ids)
        logprobs = log_softmax(logits)
        top = np.argsort(-logprobs, axis=1, kind="stable")[:, :NUM_TOP]
        top_logprobs = np.take_along_axis(logprobs, top, axis=1)
        mass = np.exp(top_logprobs).sum(1)
        assert (top[:, 0] == tokens).all() and mass.max() <= 1 + 1e-9
        tensors[f"{key}.prompt"] = np.array(ids, np.uint32)
        tensors[f"{key}.tokens"] = np.array(tokens, np.uint32)
        tensors[f"{key}.top_ids"] = top.astype(np.uint32)
        tensors[f"{key}.top_logprobs"] = top_logprobs.astype(np.float32)
        ends = [i for i, token in enumerate(tokens) if llama.is_end(token)]
        if ends:
            notes.append(f"{key} at {ends[0]}")
        print(f"{args.model} {key}: prompt {len(ids)}, top 64 hold {mass.min():.4f} to {mass.max():.4f}, ends {ends[:1]}")

    exact = Llama(args.gguf_f32, cache_type=F32)
    for key in [name.removesuffix(".prompt") for name in tensors if name.endswith(".prompt")]:
        ids, tokens = tensors[f"{key}.prompt"].tolist(), tensors[f"{key}.tokens"].tolist()
        exact.reset()
        logprobs = log_softmax(exact.decode(ids + tokens[:-1], first_output=len(ids) - 1))
        at_top = np.take_along_axis(logprobs, tensors[f"{key}.top_ids"].astype(np.int64), axis=1)
        tensors[f"{key}.exact_logprobs"] = at_top.astype(np.float32)
        tensors[f"{key}.exact_argmax"] = logprobs.argmax(1).astype(np.uint32)
        difference = np.abs(at_top - tensors[f"{key}.top_logprobs"])
        agree = (logprobs.argmax(1) == tokens).mean()
        print(f"{args.model} {key}: 8-bit activations against F32: first {difference[:, 0].max():.3f}, "
              f"any of 64 {difference.max():.3f}, mean {difference.mean():.4f}; same argmax {agree:.3f}")

    write_tensors(args.out / f"{args.model}.safetensors", tensors, {
        "made_with": PACKAGE,
        "settings": SETTINGS,
        "kv_cache": "F16; exact_*: F32",
        "file": args.gguf.name,
        "bos": f"add_special on: {'token ' + str(llama.bos) + ' leads every prompt' if llama.add_bos else 'none'}",
        "special_text": "parsed",
        "ends_of_text": "not banned, not stopped at; first one: " + (", ".join(notes) or "never"),
    })


if __name__ == "__main__":
    main()
