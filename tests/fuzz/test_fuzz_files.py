"""The readers of JSON and YAML get damaged bytes: a sentence with the file's name, or content."""

import json
import random
from pathlib import Path

from doors import Bad, try_all
from texts import damaged

from lever_plus.config.file import load_params
from lever_plus.files.json_files import json_lines, read_json
from tiny_world import ROOT


def _bad(name: str, path: Path, content: bytes, kind: str) -> Bad:
    def run() -> None:
        path.write_bytes(content)
        match kind:
            case "json":
                json.dumps(read_json(path, "look"), allow_nan=False)
            case "lines":
                json.dumps(list(json_lines(path, "look")), allow_nan=False)
            case _:
                load_params(path)

    return Bad(name, run, (path.name,))


def test_damaged_json(tmp_path: Path) -> None:
    content = json.dumps([{"a": "ä", "b": [1.5, None, "\\ud83d"]}] * 3).encode()
    rng = random.Random(1)
    path = tmp_path / "a.json"
    try_all("JSON files", (_bad(n, path, c, "json") for n, c in damaged(content, rng, 200)))


def test_damaged_json_lines(tmp_path: Path) -> None:
    content = b'{"a": 1, "b": "\\u00e4"}\n' * 5
    rng = random.Random(2)
    path = tmp_path / "a.jsonl"
    try_all("JSON lines", (_bad(n, path, c, "lines") for n, c in damaged(content, rng, 200)))


def test_damaged_params(tmp_path: Path) -> None:
    content = (ROOT / "params.yaml").read_bytes()
    rng = random.Random(3)
    path = tmp_path / "params.yaml"
    try_all("params.yaml", (_bad(n, path, c, "params") for n, c in damaged(content, rng, 200)))
