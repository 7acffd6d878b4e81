"""Numbers and tables in the README and the documentation: written from their files, and checked.

`python tests/test_readme.py` writes them again.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lever_plus.config.file import load_params  # noqa: E402
from lever_plus.config.names import GRPO_STOP  # noqa: E402
from lever_plus.data.pools import SAMPLERS  # noqa: E402
from lever_plus.evaluation import stored  # noqa: E402
from lever_plus.evaluation.methods import methods_in  # noqa: E402
from lever_plus.evaluation.plain_names import explained  # noqa: E402
from lever_plus.report import sections, tables  # noqa: E402
from lever_plus.report.front import front_methods, write_front_png  # noqa: E402
from vlm.model_zoo import FAMILIES, WHOLE  # noqa: E402


def families() -> str:
    """Return the table of models and servers."""
    rows = [
        [
            name,
            family.real,
            "yes" if family.torchvision else "",
            "no, whole prompts" if name in WHOLE else "yes",
        ]
        for name, family in FAMILIES.items()
    ]
    rows.append(["any, behind vLLM, SGLang, ...", "`vlm.kind: openai`", "", "the server's own"])
    rows.append(["any, behind code of your own", "`vlm.kind: plugin`", "", "your own"])
    heads = ["family", "a checkpoint, or the setting", "needs torchvision", "shares prefixes"]
    return _table(heads, rows)


def data_sets() -> str:
    """Return the table of data sets."""
    rows = [
        ["house words (bundled)", "`data.source.kind: embedded`", "made from the seed"],
        ["OK-VQA", "`presets/okvqa-qwen3-vl-4b.yaml`", "40 questions in its format"],
        ["VQAv2", "`presets/vqav2-qwen3-vl-4b.yaml`", "its size, by `lever-plus bench reader`"],
        ["easy-VQA", "`presets/easy-vqa.yaml`, this page", "the data set itself"],
        ["your own, VQAv2 format", "`data.source.kind: vqa_files`", "strict checks of every kind"],
        ["your own, a list (JSON, CSV)", "`lever-plus import-vqa`", "easy-VQA's lists"],
    ]
    pools = ", ".join(SAMPLERS)
    return (
        _table(["data", "how", "tested with"], rows)
        + f"\n\nPools (`pool.policy`): one for all queries (shared), or one per query: {pools}."
    )


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


def methods() -> str:
    """Return what every method is."""
    return _table(tables.METHOD_HEADER, list(tables.method_rows(_summary())))


SHOT = 2
"""Of the front page's numbers: as many demonstrations as most questions need."""


BEGIN = {"trained": "**Lever-Plus**: ", "ceiling": "upper bound: "}
"""{kind of a method: how its row begins}."""


def front() -> str:
    """Return the results in at most seven rows, and what training took."""
    summary = _summary()
    methods = methods_in(summary)
    params = load_params(ROOT / "params.yaml")
    data, price = params.data, params.pointer.price
    stop = next(row for row in _metrics("stop")["rows"] if row["price"] == price)
    rows = []
    for name in front_methods(summary):
        at = {row["shots"]: row for row in summary["rows"] if row["method"] == name}
        row = stop if name == GRPO_STOP else at.get(SHOT) or at[0]
        few = f"{row['demonstrations']:.2f} on average, at most {row['shots']}"
        shown = few if row is stop else str(row["shots"])
        trained = str(row["seeds"]) if methods[name].kind == "trained" else "none"
        numbers = [shown, tables.percent(row), f"{row['n']:,}", trained]
        begin = BEGIN.get(methods[name].kind, "")
        rows.append([f"{begin}{explained(methods[name])}", *numbers])
    heads = ["how examples are chosen", "examples shown", "accuracy in % [95 % interval]"]
    cost = next(row for row in summary["means"] if row["method"] == GRPO_STOP)["vlm_requests"]
    trained = (
        f"Training grpo-stop used {data.rl_queries:,} questions with known answers, "
        f"{data.source.dev} others to decide when training ends, and asked the model {cost:,.0f} "
        "times."
    )
    return _table([*heads, "test questions", "training runs"], rows, [trained])


PLOT = ROOT / "docs" / "front_plot.png"
Block = Callable[[], str]
MEASURED: dict[str, tuple[Block, ...]] = {
    "README.md": (front,),
    "docs/results.md": (in_context, methods, results, differences, gains, stop, costs, needed),
}
WRITTEN: dict[str, tuple[Block, ...]] = {
    "docs/guides/own-data.md": (data_sets,),
    "docs/guides/own-vlm.md": (families,),
}
"""{page: its tables}, of the last run's results and of the code."""


def replaced(text: str, page: str, blocks: Iterable[Block]) -> str:
    """Return a page with these tables as they should be."""
    for block in blocks:
        begin, end = (f"<!-- {block.__name__}: {edge} -->" for edge in ("begin", "end"))
        assert (text.count(begin), text.count(end)) == (1, 1), f"{page} lacks {begin}"
        inner = f"{begin}\n{block()}\n{end}"
        text = re.sub(f"{begin}.*?{end}", lambda _, inner=inner: inner, text, flags=re.DOTALL)
    return text


@pytest.mark.parametrize("page", WRITTEN)
def test_a_page_says_what_the_code_says(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert replaced(text, page, WRITTEN[page]) == text, "run `python tests/test_readme.py`"


def _own_results() -> bool:
    command = ("git", "diff", "--quiet", "HEAD", "--", "metrics/summary.json", "metrics/stop.json")
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("page", MEASURED)
def test_a_page_has_the_committed_results(page: str) -> None:
    if _own_results():
        pytest.skip("metrics/summary.json is not that of the commit: results of your own")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert replaced(text, page, MEASURED[page]) == text, "run `python tests/test_readme.py`"


def test_the_readme_draws_the_committed_results(tmp_path: Path) -> None:
    """Pixel for pixel, where fonts are the same: matplotlib brings its own."""
    if _own_results():
        pytest.skip("metrics/summary.json is not that of the commit: results of your own")
    write_front_png(tmp_path / "plot.png", _summary())
    with Image.open(tmp_path / "plot.png") as drawn, Image.open(PLOT) as kept:
        assert drawn.size == kept.size
        difference = ImageChops.difference(drawn.convert("RGB"), kept.convert("RGB"))
        assert difference.getbbox() is None, "run `python tests/test_readme.py`"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert len(front_methods(_summary())) <= 7


if __name__ == "__main__":
    for page in MEASURED | WRITTEN:
        path = ROOT / page
        blocks = (*MEASURED.get(page, ()), *WRITTEN.get(page, ()))
        text = replaced(path.read_text(encoding="utf-8"), page, blocks)
        path.write_text(text, encoding="utf-8", newline="\n")
    write_front_png(PLOT, _summary())
