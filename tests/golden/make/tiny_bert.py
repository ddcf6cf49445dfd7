"""A tiny seeded BERT, and what sentence-transformers makes of texts with it: mean and first row.

Writes tiny_bert.{safetensors,config.json,tokenizer.json} and tiny_bert_expected.json.

Made with Python 3.11, Debian's python3-torch 1.13.1 (a virtual environment with system packages) and
    pip install sentence-transformers==2.7.0 transformers==4.38.2 tokenizers==0.15.2 safetensors==0.8.0
    python tests/golden/make/tiny_bert.py tests/golden
"""

import argparse
import json
import string
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, models
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ["the", "quick", "brown", "fox", "jump", "##s", "over", "lazy", "dog", "hello", "world", "##ing"]
TEXTS = [
    "a",
    "Hello, world!",
    "the quick brown fox jumps over the lazy dog",
    "The lazy dog jumps over the quick brown fox.",
    "jumping",
    "é ü 你好 🦊",
    "  spaces \t and\nlines ",
    "x" * 40,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 . , ! ? a b c d e f",
]


def tokenizer():
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + WORDS + list(letters)
    pieces += ["##" + letter for letter in string.ascii_lowercase + string.digits if "##" + letter not in WORDS]
    made = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    ends = [("[CLS]", pieces.index("[CLS]")), ("[SEP]", pieces.index("[SEP]"))]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $0 [SEP]", special_tokens=ends)
    made.add_special_tokens(pieces[:5])
    # What real files carry, and what has to be left out of account.
    made.enable_truncation(16)
    made.enable_padding(length=16)
    return made, len(pieces)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(20)
    made, vocab_size = tokenizer()
    config = BertConfig(vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=48, max_position_embeddings=64, initializer_range=0.3,
                        architectures=["BertModel"])
    bert = BertModel(config).eval()
    for parameter in bert.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    # As checkpoints of models with a head have them.
    weights = {f"bert.{name}": x.contiguous() for name, x in bert.state_dict().items() if "position_ids" not in name}
    save_file(weights, out / "tiny_bert.safetensors", metadata={"format": "pt"})
    (out / "tiny_bert.config.json").write_text(json.dumps(json.loads(config.to_json_string()), indent=1) + "\n")
    made.save(str(out / "tiny_bert.tokenizer.json"), pretty=False)

    made.no_truncation()
    made.no_padding()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
                                   unk_token="[UNK]", mask_token="[MASK]")
    expected = [{"text": text, "ids": fast(text)["input_ids"]} for text in TEXTS]
    with tempfile.TemporaryDirectory() as folder:
        bert.save_pretrained(folder)
        fast.save_pretrained(folder)
        for pooling in ["mean", "cls"]:
            parts = [models.Transformer(folder, max_seq_length=64), models.Pooling(32, pooling), models.Normalize()]
            model = SentenceTransformer(modules=parts, device="cpu")
            for entry in expected:
                vector = model.encode([entry["text"]])[0]
                entry[pooling] = [float(str(x)) for x in vector]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in expected)
    (out / "tiny_bert_expected.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
