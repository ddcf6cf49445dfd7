"""Conversations as the chat templates in the GGUF files render them.

Made with Python 3.11 and
    pip install jinja2==3.1.6 gguf==0.19.0 safetensors==0.8.0 numpy==2.4.6
    python tests/golden/make/chat_templates.py smollm2=MODEL.gguf qwen2=MODEL.gguf tests/golden/llama_cpp

The environment is that of Hugging Face's `apply_chat_template`: trim_blocks, lstrip_blocks, loop controls, and a `tojson`
that keeps the order of keys and escapes neither HTML nor non-ASCII text. Special tokens stay text.
"""

import argparse
import json
from pathlib import Path

from files import write
from gguf import GGUFReader
from jinja2.sandbox import ImmutableSandboxedEnvironment

TOOLS = [{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city <now>, in °C",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}]

PLAIN = [
    ("question", [{"role": "user", "content": "What is gravity?"}], True),
    ("system", [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Name a colour.\nAny colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "  你好 & <goodbye>  "},
    ], True),
    ("history", [
        {"role": "user", "content": "1 + 1 = ?"},
        {"role": "assistant", "content": "2"},
    ], False),
]

WITH_TOOLS = ("tools", [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is it warm in Zürich and in Bern?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}},
        {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Bern"}}},
    ]},
    {"role": "tool", "content": "{\"celsius\": 21}"},
    {"role": "tool", "content": "{\"celsius\": 19}"},
], True)


def render(template, **variables):
    def raise_exception(message):
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template).render(**variables)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.gguf")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    result = {}
    for name, path in (model.split("=", 1) for model in args.models):
        fields = GGUFReader(path).fields
        specials = {
            f"{kind}_token": fields["tokenizer.ggml.tokens"].contents(fields[f"tokenizer.ggml.{kind}_token_id"].contents())
            for kind in ("bos", "eos")
        }
        template = fields["tokenizer.chat_template"].contents()
        cases = []
        for case, messages, add_generation_prompt in PLAIN + [WITH_TOOLS] * ("tools" in template):
            variables = {"messages": messages, "add_generation_prompt": add_generation_prompt}
            if case == "tools":
                variables["tools"] = TOOLS
            rendered = render(template, **specials, **variables)
            cases.append({"name": case} | variables | {"rendered": rendered})
        result[name] = specials | {"template": template, "cases": cases}
    write(args.out / "chat_templates.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
