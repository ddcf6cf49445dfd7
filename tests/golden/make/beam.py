"""What transformers' beam search makes of the model `tiny`: best answers with their scores.

Writes beam.json beside the model. Made with Python 3.10 and
    pip install torch==1.12.1 transformers==4.38.2 safetensors==0.8.0 "numpy<2"
    python tests/golden/make/beam.py tests/golden
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

FOLDER = Path(sys.argv[1])
PROMPTS = [[510], [510, 3, 7, 31, 42, 5], list(range(20, 53))]
# Ends that the model likes in these places, so that beams end early; an end of its own is never likely.
CASES = [
    dict(num_beams=1, length_penalty=1.0, early_stopping=False),
    dict(num_beams=2, length_penalty=1.0, early_stopping=False),
    dict(num_beams=4, length_penalty=1.0, early_stopping=False),
    dict(num_beams=4, length_penalty=0.0, early_stopping=False),
    dict(num_beams=4, length_penalty=2.0, early_stopping=True),
    dict(num_beams=7, length_penalty=-1.0, early_stopping=False),
    dict(num_beams=3, length_penalty=1.5, early_stopping="never"),
]

config = LlamaConfig(**json.loads((FOLDER / "tiny.config.json").read_text()))
model = LlamaForCausalLM(config).eval()
model.load_state_dict(load_file(FOLDER / "tiny.safetensors"), strict=False)
out = []
for prompt in PROMPTS:
    ids = torch.tensor([prompt])
    greedy = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    for case in CASES:
        for eos in (511, int(greedy[0, len(prompt) + 5])):
            with torch.no_grad():
                found = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=24,
                    do_sample=False,
                    eos_token_id=eos,
                    pad_token_id=0,
                    num_return_sequences=case["num_beams"],
                    return_dict_in_generate=True,
                    output_scores=True,
                    **case,
                )
            answers = []
            for i, sequence in enumerate(found.sequences.tolist()):
                tokens = sequence[len(prompt) :]
                if eos in tokens:
                    tokens = tokens[: tokens.index(eos) + 1]
                score = found.sequences_scores[i].item() if case["num_beams"] > 1 else None
                answers.append(dict(tokens=tokens, score=score))
            out.append(dict(prompt=prompt, eos=eos, max_tokens=24, answers=answers, **case))
(FOLDER / "beam.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
print(len(out), "searches;", sum(a["answers"][0]["tokens"][-1] == a["eos"] for a in out), "end by themselves")
