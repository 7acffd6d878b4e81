"""Tables of the README that other files know: written from them, and checked.

`python tests/test_readme.py` writes them anew.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lever_plus.cli.main import app  # noqa: E402
from lever_plus.data.pools import SAMPLERS  # noqa: E402
from lever_plus.evaluation import stored  # noqa: E402
from lever_plus.report import sections, tables  # noqa: E402
from lever_plus.tracking.glossary import GLOSSARY  # noqa: E402
from vlm.model_zoo import FAMILIES, WHOLE  # noqa: E402


def supported() -> str:
    """Return the tables of models, servers and data."""
    rows = [
        "| VLM family | a checkpoint | needs torchvision | shares prefixes |",
        "|---|---|---|---|",
    ]
    for name, family in FAMILIES.items():
        needs = "yes" if family.torchvision else ""
        shares = "no, whole prompts" if name in WHOLE else "yes"
        rows.append(f"| {name} | {family.real} | {needs} | {shares} |")
    rows.append("| any, behind vLLM, SGLang, ... | `vlm.kind: openai` | | the server's own |")
    rows.append("| any, behind code of your own | `vlm.kind: plugin` | | your own |")
    data = [
        "| data | how | tested with |",
        "|---|---|---|",
        "| embedded house words | `data.source.kind: embedded` | made from the seed |",
        "| OK-VQA | `presets/okvqa-qwen3-vl-4b.yaml` | 40 questions in its format |",
        "| VQAv2 | `presets/vqav2-qwen3-vl-4b.yaml` | its size, by `lever-plus bench reader` |",
        "| easy-VQA | `presets/easy-vqa.yaml`, docs/guides/own-data.md | the data set itself |",
        "| your own, VQAv2 format | `data.source.kind: vqa_files` | strict checks of every kind |",
        "| your own, a list (JSON, CSV) | `lever-plus import-vqa` | easy-VQA's lists |",
    ]
    pools = ", ".join(SAMPLERS)
    return "\n".join([*rows, "", *data, "", f"Pools: one for all queries, or per query: {pools}."])


def _metrics(name: str) -> Any:
    return json.loads((ROOT / "metrics" / f"{name}.json").read_text("utf-8"))


def _summary() -> tables.Summary:
    found: tables.Summary = _metrics("summary")
    return found


def _table(heads: list[str], rows: list[list[str]], notes: Sequence[str] = ()) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, *([" ".join(notes)] if notes else [])])


def results() -> str:
    """Return the accuracies of the last run."""
    summary = _summary()
    notes = tables.notes(summary["means"])
    return _table(tables.accuracy_header(summary), list(tables.accuracy_rows(summary)), notes)


def differences() -> str:
    """Return the paired differences of the last run."""
    summary, heads = _summary(), ["method", "minus SFT [95 %]", "minus RCE [95 %]"]
    notes = tables.notes(tables.mean_differences(summary))
    return _table(heads, list(tables.difference_rows(summary)), notes)


def costs() -> str:
    """Return what each method costs, but for times: they are another machine's elsewhere."""
    rows = [row[:-1] for row in tables.cost_rows(_summary(), {})]
    return _table(tables.COST_HEADER[:-1], rows)


def stop() -> str:
    """Return what the policy that stops reaches at every price."""
    prices = stored.read_stop(ROOT / "metrics" / "stop.json")["rows"]
    return _table(tables.STOP_HEADER, tables.stop_rows(prices), tables.notes(prices))


def gains() -> str:
    """Return what each further demonstration adds to some methods."""
    shown = ("random", "sttr", "fixed", "sft", "rce", "agro", "grpo", "oracle")
    summary = _summary()
    rows = [row for row in tables.gain_rows(summary) if row[0] in shown]
    notes = tables.notes(row for row in summary["gains"] if row["method"] in shown)
    return _table(tables.gain_header(summary), rows, notes)


def in_context() -> str:
    """Return what the VLM reads from demonstrations."""
    return _table(sections.IN_CONTEXT_HEADER, sections.in_context_rows(_metrics("in_context")))


COUNTS = {
    **{"0": "no demonstration", "1": "one", "2": "two", "3": "three", "4": "four"},
    "none": "more",
}


def needed() -> str:
    """Return how many demonstrations the ideal reader needs, and what the picks of methods are."""
    found = _metrics("ideal_reader")
    shares = [
        f"{100 * row['share']:.1f} % need {COUNTS[count]}" for count, row in found["needed"].items()
    ]
    kinds = ["complement", "duplicate", "harmful", "idle"]
    rows = [
        [
            row["method"],
            str(row["position"]),
            *(f"{100 * row[kind]['share']:.1f}" for kind in kinds),
        ]
        for row in found["picks"]
        if row["position"] <= 2 and row["method"] in ("random", "sttr", "sft", "grpo", "oracle")
    ]
    sentence = f"With what their pools offer, of the {found['questions']:,} test questions "
    table = _table(["method", "pick", *(f"{kind} %" for kind in kinds)], rows)
    return sentence + ", ".join(shares) + ".\n\n" + table


def commands() -> str:
    """Return every command with its help."""
    rows = [[f"`lever-plus {name}`", text] for name, text in _commands(typer.main.get_command(app))]
    return _table(["command", "what it does"], rows)


def _commands(group: Any, path: str = "") -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        whole = f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from _commands(command, whole)
        elif not command.hidden:
            first, _, _ = command.help.partition("\n\n")
            yield whole, " ".join(first.split())


def glossary() -> str:
    """Return every logged metric with its meaning."""
    rows = [[f"`{name}`", text] for name, text in GLOSSARY.items()]
    return _table(["metric", "meaning"], rows)


MEASURED: tuple[Callable[[], str], ...] = (
    in_context,
    results,
    costs,
    differences,
    gains,
    stop,
    needed,
)
WRITTEN: tuple[Callable[[], str], ...] = (supported, commands, glossary)


def replaced(text: str, blocks: tuple[Callable[[], str], ...]) -> str:
    """Return the README with these tables as they should be."""
    for block in blocks:
        begin, end = (f"<!-- {block.__name__}: {edge} -->" for edge in ("begin", "end"))
        assert (text.count(begin), text.count(end)) == (1, 1), f"README.md lacks {begin}"
        inner = f"{begin}\n{block()}\n{end}"
        text = re.sub(f"{begin}.*?{end}", lambda _, inner=inner: inner, text, flags=re.DOTALL)
    return text


def test_the_readme_says_what_the_code_says() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replaced(text, WRITTEN) == text, "run `python tests/test_readme.py`"


def test_the_readme_has_the_committed_results() -> None:
    command = ("git", "diff", "--quiet", "HEAD", "--", "metrics/summary.json", "metrics/stop.json")
    if subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode:
        pytest.skip("metrics/summary.json is not that of the commit: results of your own")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replaced(text, MEASURED) == text, "run `python tests/test_readme.py`"


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = replaced(path.read_text(encoding="utf-8"), (*WRITTEN, *MEASURED))
    path.write_text(text, encoding="utf-8", newline="\n")
