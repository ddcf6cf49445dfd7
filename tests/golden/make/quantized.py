"""What llama.cpp says of models that Jackfield has quantized: the logits after a prompt.

Made with Python 3.11 and
    pip install xllamacpp==2026.10.11549 numpy==2.4.6
    BLESS=1 PYTHON=python3 cargo test -p jackfield-tests --test quantize -- --ignored llama_cpp

The test writes the models and calls this script with their folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
from llama_c import F32, Llama


def main():
    folder, prompt = Path(sys.argv[1]), json.loads(sys.argv[2])
    said = {}
    for path in sorted(folder.glob("*.gguf")):
        logits = Llama(path, context_size=128, cache_type=F32).decode(prompt)[-1]
        said[path.name] = {"logits": [float(str(x)) for x in logits.astype(np.float32)]}
    entries = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in said.items())
    print("{\n" + entries + "\n}")


if __name__ == "__main__":
    main()
