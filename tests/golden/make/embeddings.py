"""Embeddings of texts by all-MiniLM-L6-v2, as sentence-transformers computes them; F32, CPU.

Each text is encoded by itself, then all of them in one batch with padding; `batch_cosine_min` in the
metadata says how far the two lie apart. Token ids are those of the tokenizer that comes with the
model, with its own limit of 256 tokens.

Made with Python 3.11, Debian's python3-torch 1.13.1 (a virtual environment with system packages) and
    pip install sentence-transformers==2.7.0 transformers==4.38.2 safetensors==0.8.0
    python tests/golden/make/embeddings.py models/all-MiniLM-L6-v2 tests/golden/embeddings
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

TEXTS = [
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "A panel in a studio where any unit can be patched in or out while the show is on air.",
    "你好，世界！",
    "Ünïcödé naïve café — “quotes”, emoji 🦊, and the word antidisestablishmentarianism",
    "fn main() { println!(\"{:?}\", vec![1u8; 4]); } // 0xDEADBEEF",
    "   spaces \t tabs\n\nand lines   ",
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer the slings and arrows "
    "of outrageous fortune, or to take arms against a sea of troubles and by opposing end them. " * 3,
    "word " * 254,
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, help="without its ending")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = SentenceTransformer(str(args.model), device="cpu")
    alone = np.concatenate([model.encode([text], normalize_embeddings=True) for text in TEXTS])
    together = model.encode(TEXTS, batch_size=len(TEXTS), normalize_embeddings=True)
    cosine = float((alone * together).sum(axis=1).min())
    ids = [model.tokenizer(text, truncation=False)["input_ids"] for text in TEXTS]
    assert max(map(len, ids)) <= 256, "nothing is cut"
    assert alone.dtype == np.float32
    save_file({"embeddings": alone}, args.out.with_suffix(".safetensors"),
              metadata={"batch_cosine_min": f"{cosine:.9f}"})
    entries = [{"text": text, "ids": row} for text, row in zip(TEXTS, ids)]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    args.out.with_suffix(".json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
