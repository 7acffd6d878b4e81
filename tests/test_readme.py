"""Tables of the README that say what is supported: written from what the tests run.

`python tests/test_readme.py` writes them anew.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lever_plus.data.pool import SAMPLERS  # noqa: E402
from vlm.model_zoo import FAMILIES  # noqa: E402

BEGIN, END = "<!-- supported: begin -->", "<!-- supported: end -->"


def supported() -> str:
    """Return the tables of models, servers and data."""
    rows = [
        "| VLM family | a checkpoint | needs torchvision | shares prefixes |",
        "|---|---|---|---|",
    ]
    for name, family in FAMILIES.items():
        needs = "yes" if family.torchvision else ""
        shares = "yes" if family.prefix_reuse else "no, whole prompts"
        rows.append(f"| {name} | {family.real} | {needs} | {shares} |")
    rows.append("| any, behind vLLM, SGLang, ... | `vlm.kind: openai` | | the server's own |")
    data = [
        "| data | how | tested with |",
        "|---|---|---|",
        "| embedded house words | `data.source.kind: embedded` | made from the seed |",
        "| OK-VQA | `presets/okvqa-qwen2.5-vl-3b.yaml` | 40 questions in its format |",
        "| VQAv2 | `presets/vqav2-qwen2.5-vl-3b.yaml` | its size, by `lever-plus bench reader` |",
        "| your own, VQAv2 format | `data.source.kind: vqa_files` | strict checks of every kind |",
    ]
    pools = ", ".join(SAMPLERS)
    return "\n".join([*rows, "", *data, "", f"Pools: one for all queries, or per query: {pools}."])


def replaced(text: str) -> str:
    """Return the README with its tables as they should be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{supported()}\n{END}{tail}"


def test_the_readme_says_what_the_tests_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert BEGIN in text
    assert replaced(text) == text, "run `python tests/test_readme.py`"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(replaced(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
