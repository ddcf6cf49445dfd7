"""Tokens per second of mistral.rs: mistral_rs.py MODEL.gguf PREFILL DECODE RUNS

Prints one line of JSON a run. The prompt is text of about PREFILL tokens: mistral.rs takes no ids.
"""

import json
import os
import sys

from mistralrs import CompletionRequest, Runner, Which

model, prefill, decode, runs = sys.argv[1], *map(int, sys.argv[2:])
folder, name = os.path.split(os.path.abspath(model))
runner = Runner(which=Which.GGUF(quantized_model_id=folder, quantized_filename=name))
for run in range(runs + 1):  # the first one warms up
    # Another beginning each time, so that no prefix is kept from the run before.
    prompt = f"{run}" + " the" * (prefill - 2)
    request = CompletionRequest(
        prompt=prompt, model="default", max_tokens=decode, temperature=0.0, ignore_eos=True
    )
    usage = runner.send_completion_request(request).usage
    if run > 0:
        found = {
            "prompt_tokens": usage.prompt_tokens,
            "prefill": usage.avg_prompt_tok_per_sec,
            "decode": usage.avg_compl_tok_per_sec,
        }
        print(json.dumps(found), flush=True)
