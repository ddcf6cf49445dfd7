"""Token ids of awkward texts, as llama.cpp tokenizes them; no BOS or EOS is added (add_special off).

Made with Python 3.11 and
    pip install xllamacpp==2026.10.11549 safetensors==0.8.0 numpy==2.4.6
    python tests/golden/make/tokenizers_golden.py smollm2=A.gguf gemma3=B.gguf qwen2=C.gguf tests/golden/llama_cpp
"""

import argparse
from pathlib import Path

from files import write_entries
from llama_c import Llama

TEXTS = [
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n\n",
    "\t",
    "\t\t \t",
    "\r\n",
    " \n ",
    "a",
    " a",
    "  a",
    "a ",
    "a  ",
    "Hello, world!",
    " Hello,  world !",
    "hello\nworld\n\n\tindented\n    four\n",
    "    return x\n        if y:\n\t\tpass\n",
    "trailing spaces   \nnext",
    "0",
    "7 42 123 1234 12345 1234567890",
    "3.14159, -2.5e-10, 1,000,000.00",
    "0xDEADBEEF 1e6 50% $9.99 №5",
    "²³ ½ ٣٤٥ ४५ 一二三 ⅷ",
    "I'm you're he's we've they'll I'd can't",
    "I'M YOU'RE HE'S WE'VE THEY'LL I'D CAN'T",
    "I’m you’re he’s it’s",
    "'s 't 're'x 'tis o'clock rock'n'roll",
    "camelCase PascalCase snake_case SCREAMING_CASE kebab-case",
    "McDonald iPhone LaTeX HTTPServer x86_64",
    "https://example.com/path/to?q=1&r=a%20b#frag",
    "user.name+tag@example.co.uk",
    "C:\\Users\\me\\file.txt /usr/local/bin/../lib",
    "def f(x: int) -> str:\n    return f\"{x!r:>10}\"\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 2; }",
    "fn main() { println!(\"{:?}\", vec![1u8; 4]); } // end",
    "SELECT * FROM t WHERE a <> 'b''c' AND d >= 10;",
    "<div class=\"x\">&nbsp;&lt;tag&gt;</div>",
    "{\"key\": [1, 2.0, null, true], \"ключ\": \"значение\"}",
    "# Title\n\n* item **bold** `code`\n\n---\n\n| a | b |\n|---|---|\n",
    "!!! ??? ... --- *** === ~~~ ::: ;;; ,,,",
    "(((nested) [brackets] {here}) <angle>)",
    "“curly” ‘quotes’ «guillemets» — dash – en … ellipsis",
    "你好，世界！今天天气怎么样？",
    "中文English混合123文本",
    "日本語のテキスト、カタカナ、ひらがな。",
    "한국어 문장입니다.",
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "naïve café Zoë Ångström façade",
    "nai\u0308ve cafe\u0301 Zoe\u0308",
    "e\u0301\u0302\u0303 combining",
    "🙂 😂😂 👍🏽 👨‍👩‍👧‍👦 🇨🇭 ❤️",
    "🤖text🤖 text 🤖",
    "zero\u200bwidth\u200djoin\ufeffbom\u00a0nbsp\u3000ideographic",
    "soft\u00adhyphen \u2028line\u2029para",
    "bell\x07 escape\x1b[0m delete\x7f",
    "𝒜𝓁𝑔𝑒𝒷𝓇𝒶 𐍈 𠜎",
    "ﬁ ﬂ ｆｕｌｌｗｉｄｔｈ ①②",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                        x",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "▁lower▁one▁eighth▁block",
    "\\n is not a newline, nor is \\t a tab",
    "<0x0A> <0xFF> <unk>",
]

SPECIAL_TEXTS = [
    "<|im_start|>user\nHi<|im_end|>\n",
    "a<|im_end|>b <|im_end|> c",
    "<|endoftext|>",
    "text<|endoftext|>text <|endoftext|>",
    "<|im_start",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<eos> </s> <s> <pad>",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
    "<|fim_prefix|>def f():<|fim_suffix|>\n<|fim_middle|>",
    "<repo_name>x<file_sep>y",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.gguf")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    cases = [(text, False) for text in TEXTS] + [(text, parse) for text in SPECIAL_TEXTS for parse in (False, True)]
    models = dict(model.split("=", 1) for model in args.models)
    llamas = {name: Llama(path) for name, path in models.items()}
    entries = []
    for text, parse_special in cases:
        ids = {name: llama.tokenize(text, add_special=False, parse_special=parse_special) for name, llama in llamas.items()}
        entries.append({"text": text, "parse_special": parse_special} | ids)
    write_entries(args.out / "tokenizers.json", entries)
    print(len(entries), "texts for", ", ".join(llamas))


if __name__ == "__main__":
    main()
