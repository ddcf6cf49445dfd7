"""Writing fixtures: each file is replaced at once, so that a reader sees the old one or the new one."""

import json
import os

from safetensors.numpy import save


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(temporary, path)


def write_tensors(path, tensors, metadata):
    """safetensors writes its metadata in random order; sorted here, so that a rerun gives the same bytes."""
    raw = save(tensors, {key: str(value) for key, value in metadata.items()})
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write(path, len(text).to_bytes(8, "little") + text + raw[8 + size :])


def write_entries(path, entries):
    """A JSON object or list, one entry a line: a change shows as one line."""
    if isinstance(entries, dict):
        lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]
    else:
        lines = [json.dumps(value, ensure_ascii=False) for value in entries]
    opening, closing = "{}" if isinstance(entries, dict) else "[]"
    write(path, opening + "\n" + ",\n".join(lines) + "\n" + closing + "\n")
