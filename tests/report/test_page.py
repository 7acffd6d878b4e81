"""The page: the summary's numbers, one file, the same bytes, and texts that stay texts."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from PIL import Image
from report_world import NASTY, ORACLE, QUESTIONS, Made

from lever_plus.data.images import open_image
from lever_plus.house_words.probe import RULES
from lever_plus.pipeline import report
from lever_plus.report import sections, tables
from lever_plus.report.page import page, table
from lever_plus.report.sections import IN_CONTEXT
from lever_plus.report.thumbnails import thumbnails
from lever_plus.tracking.lineage import import_closure
from tiny_world import ROOT


def section(html: str, heading: str) -> str:
    """Return what is under a heading."""
    return re.split(r"<h[23]|<script", re.split(rf">{heading}</h[23]>", html)[1])[0]


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [[unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r)] for r in rows]


def data_of(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="decisions">(.*?)</script>', html)
    assert found
    loaded: dict[str, object] = json.loads(found[1])
    return loaded


def test_the_sections_are_in_the_order_in_which_they_are_asked_for(html: str) -> None:
    """First the picture, then what it means; what has tables is folded."""
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", html) == [
        "In one picture",
        "What was found",
        "All methods by accuracy",
        "The numbers behind it",
        "Single decisions",
    ]
    assert re.findall(r'<details class="part"><summary><h3>(.*?)</h3>', html) == [
        "Accuracy",
        "What each method costs",
        "What the VLM learns from demonstrations",
        "Paired differences",
        "Accuracy over shots",
        "What each demonstration adds",
        "Knowing when to stop",
        "How far to the oracle",
        "The ideal reader",
        "Headroom",
        "Rewards of the candidates",
        "Training",
        "Copies and order",
        "Ablations",
    ]


def test_the_tables_hold_the_summarys_numbers(html: str, project: Made) -> None:
    summary = json.loads((project.paths.summary).read_text(encoding="utf-8"))
    rows = cells(section(html, "Accuracy"))
    accuracies, methods = list(tables.accuracy_rows(summary)), list(tables.method_rows(summary))
    heads = tables.accuracy_header(summary)
    assert rows == [heads, *accuracies, tables.METHOD_HEADER, *methods]
    assert [row[0] for row in methods] == [row[0] for row in accuracies]
    assert ["sttr", "nearest by question text", "similarity", "nearest by question text"] in methods
    costs = cells(section(html, "What each method costs"))
    assert costs == [tables.COST_HEADER, *tables.cost_rows(summary, {"rce": 0.5})]
    assert costs[0][0] == "method"
    assert {row[0]: row[2:] for row in costs}["rce"] == ["2.50", "47.5", "1,500", "0.50"]
    shown = cells(section(html, "Paired differences"))
    for row in summary["differences"]:
        expected = [
            f"{row['method']} - {row['versus']}",
            tables.points(row),
            *(str(row[key]) for key in ("wins", "losses", "ties")),
            tables.p_value(row["p"]),
            tables.p_value(row["p_holm"]),
            str(row["n"]),
        ]
        assert expected in shown


def test_the_page_loads_nothing_and_is_small(html: str) -> None:
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r"https?:", without_namespaces)
    assert "<link" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert all(src.startswith("data:") for src in re.findall(r'\bsrc="([^"]*)"', html))
    decisions = data_of(html)["decisions"]
    assert isinstance(decisions, list)
    assert len(decisions) == 60
    assert len(html.encode()) < 5_000_000


def test_equal_data_give_equal_bytes(html: str, project: Made) -> None:
    folder = project.paths.report
    cards = {p: p.read_bytes() for p in (folder / "model_cards").iterdir()}
    report.run(project.settings, project.paths)
    assert (folder / "index.html").read_text(encoding="utf-8") == html
    assert cards == {p: p.read_bytes() for p in (folder / "model_cards").iterdir()}


def test_question_texts_are_no_markup(html: str) -> None:
    assert "<img src=x" not in html
    assert html.count("</script>") == 3
    assert "<!--" not in html
    examples = data_of(html)["examples"]
    assert isinstance(examples, dict)
    assert examples[str(QUESTIONS[0])][1] == NASTY
    scripts = "".join(re.findall(r"<script>(.*?)</script>", html, re.DOTALL))
    assert "innerHTML" not in scripts
    assert "insertAdjacentHTML" not in scripts
    text = page("T<i>", "a<b>", {"A": table(["x"], [["<b>"]]), "left out": ""})
    assert "T&lt;i&gt;" in text
    assert "a&lt;b&gt;" in text
    assert "<td>&lt;b&gt;</td>" in text
    assert "left out" not in text


def test_every_image_and_example_of_a_decision_is_there_once(html: str) -> None:
    data = data_of(html)
    examples, images, decisions = data["examples"], data["images"], data["decisions"]
    assert isinstance(examples, dict)
    assert isinstance(images, dict)
    assert isinstance(decisions, list)
    used = {str(d["id"]) for d in decisions}
    used |= {str(i) for d in decisions for c in d["choices"] for p in c["pointers"] for i in p}
    assert used == set(examples)
    assert {str(image) for image, _, _ in examples.values()} == set(images)
    assert all(json.dumps(data).count(uri) == 1 for uri in images.values())
    oracle = [c for d in decisions for c in d["choices"] if c["method"] == "oracle"]
    assert len(oracle) == len({d["id"] for d in decisions} & set(ORACLE))
    assert all(len(c["pointers"]) == len(c["answers"]) for c in oracle)


def test_without_script_and_on_paper_all_but_the_browser_is_there(html: str) -> None:
    assert "<noscript>" in html
    assert '<div class="controls" hidden>' in html
    assert re.search(r"@media print \{.*\.controls.*display: none.*\.printed", html, re.DOTALL)


def test_right_and_wrong_are_words_not_colours_alone(html: str) -> None:
    assert "✓ right" in html
    assert "✗ wrong" in html


def test_images_become_smaller_until_they_fit(project: Made) -> None:
    images = {i: project.examples[i].image for i in QUESTIONS[:20]}
    free = sum(map(len, thumbnails(images, 10**9).values()))
    tight = sum(map(len, thumbnails(images, free - 1).values()))
    assert tight < free
    assert all(uri.startswith("data:image/webp;base64,") for uri in thumbnails(images, 0).values())


def test_the_headroom_and_diagnostics_are_those_of_the_files(html: str) -> None:
    assert ["groups with both", "100.0%"] in cells(section(html, "Headroom"))
    assert ["best of 1", "41.7"] in cells(section(html, "Headroom"))
    assert ["grpo", "12.3", "10.0", "40.0", "77.0", ""] in cells(section(html, "Copies and order"))
    assert "8.1 points" in section(html, "Copies and order")


def test_the_ideal_reader_is_shown_beside_what_was_measured(html: str, project: Made) -> None:
    found = json.loads((project.paths.metrics / "ideal_reader.json").read_text(encoding="utf-8"))
    text = section(html, "The ideal reader")
    assert "Of the 100 test questions, 20.0% need no demonstration, 80.0% need one" in text
    assert "for 0.0% even four are not enough" in text
    rows = cells(text)
    for row in found["accuracy"]:
        whole = [tables.percent(row["measured"]), tables.percent(row), str(row["n"])]
        assert [row["method"], str(row["shots"]), *whole] in rows
    grpo = [row for row in found["accuracy"] if row["method"] == "grpo"]
    pairs = [f"{100 * r['measured']['accuracy']:.1f} / {100 * r['accuracy']:.1f}" for r in grpo]
    assert ["grpo", "", *pairs] in rows
    picks = [row for row in found["picks"] if row["method"] == "grpo"]
    kinds = ("complement", "duplicate", "harmful", "idle")
    shares = [" / ".join(f"{100 * row[kind]['share']:.0f}" for kind in kinds) for row in picks]
    assert ["grpo", *shares] in rows


def test_what_the_vlm_reads_is_said_in_words(html: str) -> None:
    rows = cells(section(html, "What the VLM learns from demonstrations"))
    assert ["none, and the question in plain words", "0.0 %"] in rows
    assert ["one for each half", "30.0 %"] in rows
    assert len(rows) == 11


def test_every_row_of_the_in_context_table_has_words() -> None:
    assert set(IN_CONTEXT) == {"plain", *RULES}


def test_other_data_have_no_ideal_reader(project: Made, tmp_path: Path) -> None:
    paths = replace(project.paths, moved={"report": tmp_path}, metrics_in=tmp_path)
    shutil.copytree(project.paths.metrics, tmp_path, dirs_exist_ok=True)
    (tmp_path / "in_context.json").write_text("{}")
    settings = project.settings.model_copy(update={"source": "vqa_files"})
    report.run(settings, paths)
    assert json.loads((tmp_path / "ideal_reader.json").read_text()) == {}
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "The ideal reader" not in html
    assert "What the VLM learns from demonstrations" not in html
    assert '"needs":""' in html
    assert "must be told" not in html


def test_the_rewards_of_every_generator_are_drawn(html: str) -> None:
    drawn = section(html, "Rewards of the candidates")
    assert "beam: 10 candidates, mean 2.00" in drawn
    assert "random: 15 candidates, mean 0.00" in drawn


def test_ablations_stand_there_and_say_when_they_are_old(project: Made) -> None:
    summary = json.loads((project.paths.summary).read_text(encoding="utf-8"))
    now = next(row["accuracy"] for row in summary["means"] if row["method"] == "grpo")
    row = {
        "variant": "default",
        "method": "grpo",
        "shots": {"1": 0.5},
        "accuracy": now,
        "ci95": [0.4, 0.6],
        "n": 100,
        "seed_accuracies": [0.5],
        "versus": "",
        "difference": None,
        "reward_std": None,
    }
    told = {
        **{"difference": 0.02, "ci95": [-0.01, 0.05], "separable": False, "trainings": 3},
        **{"one_training": False, "trainings_needed": 9},
    }
    other = {**row, "variant": "no-kl", "versus": "default/grpo", "difference": told}
    text = sections.ablation_section([row, other], summary)
    assert "+2.0 [-1.0, +5.0] not settled by 3 trainings (9 would)" in text
    assert tables.UNSETTLED in unescape(text)
    assert "again" not in text
    assert "again" in sections.ablation_section([{**row, "accuracy": 0.1}], summary)
    assert sections.ablation_section([], summary) == ""
    assert "<td>123,457</td>" in sections.ablation_section(
        [{**row, "vlm_requests": 123_456.6}], summary
    )
    now = next(row["accuracy"] for row in summary["rows"] if row["method"] == "zero-shot")
    zero = {**row, "method": "zero-shot", "accuracy": now}
    assert "again" not in sections.ablation_section([zero], summary)


def test_the_curve_of_the_ablations_is_under_their_table(html: str) -> None:
    shown, _, curve = section(html, "Ablations").partition("<h4>What is a call worth?</h4>")
    header, row = cells(shown)
    assert dict(zip(header, row, strict=True))["requests"] == "123,456"
    assert ">VLM requests to train<" in curve


def test_the_stage_depends_on_every_file_of_the_folder() -> None:
    """DVC gets the whole folder, with its style and script, where every module is imported."""
    closure = import_closure("lever_plus.pipeline.report", ROOT / "src")
    folder = ROOT / "src" / "lever_plus" / "report"
    assert {p for p in folder.glob("*.py") if p.name != "__init__.py"} <= set(closure)
    assert "- src/lever_plus/report\n" in (ROOT / "dvc.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["diagnostics.json", "summary.json"])
def test_a_missing_file_is_named(project: Made, name: str) -> None:
    path = project.paths.metrics / name
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(report.UserError, match=name):
            report.run(project.settings, project.paths)
    finally:
        path.write_bytes(content)


def test_every_image_is_opened_once_however_many_sizes_are_tried(
    project: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {key: example.image for key, example in list(project.examples.items())[:5]}
    opened = []

    def counted(path: str) -> Image.Image:
        opened.append(path)
        return open_image(path)

    monkeypatch.setattr("lever_plus.report.thumbnails.open_image", counted)
    smallest = thumbnails(images, 0)
    assert sorted(opened) == sorted(images.values())
    stream = io.BytesIO(base64.b64decode(smallest[1].partition(",")[2]))
    assert Image.open(stream).size == (48, 36)
