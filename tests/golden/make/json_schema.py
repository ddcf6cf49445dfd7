"""Writes `json_schema.json`: the JSON Schema Test Suite of draft 2020-12 (MIT, Julian Berman and others) as one file.

Arguments: a folder with the suite, as `json/` of the source distribution of `jsonschema` 4.26.0 has it.
"""

import json
import pathlib
import sys

SUITE = pathlib.Path(sys.argv[1])
# Meta-schemas and documents elsewhere are not there when a request is answered; formats are notes by default.
WITHOUT = ("dynamicRef", "format", "refRemote", "vocabulary")

files = {}
for path in sorted((SUITE / "tests/draft2020-12").glob("*.json")):
    if path.stem not in WITHOUT:
        files[path.stem] = [
            {
                "description": group["description"],
                "schema": group["schema"],
                "tests": [[test["description"], test["data"], test["valid"]] for test in group["tests"]],
            }
            for group in json.loads(path.read_text())
        ]
out = {"license": (SUITE / "LICENSE").read_text().strip(), "files": files}
target = pathlib.Path(__file__).parent.parent / "json_schema.json"
target.write_text(json.dumps(out, separators=(",", ":"), ensure_ascii=True) + "\n")
print(target, sum(len(group["tests"]) for groups in files.values() for group in groups), "tests")
