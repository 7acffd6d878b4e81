"""What a reader sees first: the plot, one decision, the ladder; every method is explained."""

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from html_text import Page
from PIL import Image
from report_world import ORACLE, POOL, QUESTIONS, Made

from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.methods import Methods, methods_in
from lever_plus.evaluation.plain_names import explained
from lever_plus.evaluation.summary import summarise
from lever_plus.pipeline.ideal_reader import open_reader
from lever_plus.report.card import KINDS, Story, card, story
from lever_plus.report.front import front_methods, front_svg, looks, write_front_png
from lever_plus.report.ladder import ladder, rungs
from lever_plus.report.plots import COLOURS, INK, PAPER, on_page
from lever_plus.report.tables import Summary
from tiny_world import REGISTRY


@pytest.fixture
def summary(project: Made) -> Summary:
    loaded: Summary = json.loads(project.paths.summary.read_text(encoding="utf-8"))
    return loaded


def everything() -> Summary:
    """Every method of the registry, each with another accuracy, in an order of its own."""
    rows = [
        Row(method.name, 1, q, q, shot, [], [], "x", 1, float(q < (7 * place) % 20), False)
        for place, method in enumerate(REGISTRY)
        for q in range(10 if method.kind == "ceiling" else 20)
        for shot in ((0,) if method.name in ("zero-shot", "instructed") else (1, 2))
    ]
    loaded: Summary = json.loads(json.dumps(summarise(pd.DataFrame(rows), REGISTRY, 50)))
    return loaded


def first_mention(name: str, text: str) -> int:
    found = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    assert found, name
    return found.start()


def test_every_method_is_explained_where_it_is_first_named(html: str, summary: Summary) -> None:
    text = Page(html).text
    methods = methods_in(summary)
    assert len(list(methods)) == 11
    for method in methods:
        spans = [m.span() for m in re.finditer(re.escape(explained(method)), text, re.IGNORECASE)]
        first = first_mention(method.name, text)
        assert any(start <= first < end for start, end in spans), method.name


def test_all_tables_are_folded(html: str) -> None:
    folds = Page(html).table_folds
    assert len(folds) > 20
    assert min(folds) == 1
    assert "<details open" not in html


def test_the_ladder_is_ordered_and_has_the_summarys_numbers() -> None:
    summary = everything()
    rows = {row["method"]: row for row in [*summary["rows"], *summary["means"]]}
    html = ladder(summary)
    found = re.findall(r'class="name">(.*?)</span><span class="number">(.*?)</span>', html)
    assert [name for name, _ in found] == [
        explained(m).replace("'", "&#x27;") for m, _ in rungs(summary)
    ]
    assert {m.name for m, _ in rungs(summary)} == {m.name for m in REGISTRY}
    accuracies = [float(number.split(" ")[0]) for _, number in found]
    assert accuracies == sorted(accuracies)
    assert len(set(accuracies)) > 10
    for (method, _), (_, number) in zip(rungs(summary), found, strict=True):
        row = rows[method.name]
        low, high = (f"{100 * bound:.1f}" for bound in row["ci95"])
        star = "*" if method.kind == "ceiling" else ""
        assert number == f"{100 * row['accuracy']:.1f} [{low}, {high}]{star}"
    assert "On 20 test questions, those marked with * on the first 10." in html


def test_a_rung_is_drawn_where_its_number_is() -> None:
    summary = everything()
    for method, row in rungs(summary):
        rung = ladder(summary).split(f"({method.name})</span>")[1].split("</li>")[0]
        bar = re.search(r'class="bar" style="left:([\d.]+)%;width:([\d.]+)%"', rung)
        point = re.search(r'class="point" style="left:([\d.]+)%"', rung)
        assert bar
        assert point
        low, high = (100 * bound for bound in row["ci95"])
        assert float(bar[1]) == pytest.approx(low, abs=0.01)
        assert float(bar[1]) + float(bar[2]) == pytest.approx(high, abs=0.02)
        assert float(point[1]) == pytest.approx(100 * row["accuracy"], abs=0.01)


def test_the_front_has_seven_methods_and_the_best_by_similarity() -> None:
    summary = everything()
    means = {row["method"]: row["accuracy"] for row in summary["means"]}
    similar = [m for m in REGISTRY.names("similarity") if m != "sttr-as-many"]
    nearest = max(similar, key=lambda name: means[name])
    story = ["zero-shot", "random", nearest, "sft", "rce"]
    assert front_methods(summary) == [*story, "grpo-stop", "oracle"]
    assert front_methods(summary, "grpo") == [*story, "grpo", "oracle"]
    assert front_methods(summary, "rce") == [*story, "oracle"]
    few = {**summary, "methods": [m for m in summary["methods"] if m["name"] in ("sft", "random")]}
    assert front_methods(few) == ["random", "sft"]


def test_the_front_explains_its_methods_and_draws_no_other() -> None:
    summary = everything()
    shown = front_methods(summary)
    svg = front_svg(summary, shown)
    for method in REGISTRY:
        assert (f">{explained(method)}</text>" in svg) == (method.name in shown)


def test_the_picture_of_the_readme_is_drawn_from_the_summary_alone(tmp_path: Path) -> None:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        write_front_png(path, everything())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(io.BytesIO(paths[0].read_bytes())) as picture:
        assert picture.width > 800
        corner = picture.convert("RGB").getpixel((2, 2))
    assert isinstance(corner, tuple)
    assert min(corner) >= 254


def test_methods_with_points_look_different() -> None:
    drawn = [name for name in looks(REGISTRY) if name not in ("zero-shot", "instructed")]
    assert looks(REGISTRY)[-2:] == ["zero-shot", "instructed"]
    assert set(looks(REGISTRY)) == {method.name for method in REGISTRY}
    front = [drawn.index(n) for n in ("sft", "rce", "grpo", "grpo-stop", "oracle", "random")]
    assert len({index % len(COLOURS) for index in front}) == len(front)


@pytest.mark.parametrize("back", ["#ffffff", "#161616"])
def test_the_colours_of_plots_can_be_told_on_both_backgrounds(back: str) -> None:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in COLOURS:
        low, high = sorted([light(colour), light(back)])
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_plots_take_the_colours_of_the_page(html: str) -> None:
    svg = front_svg(everything(), ["sft", "zero-shot"])
    assert INK in svg
    assert PAPER in svg
    themed = on_page(svg)
    assert "currentColor" in themed
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) > 8
    for each in (themed, *svgs):
        assert not {INK, PAPER, "#ffffff", "#000000", "fill: white"} & set(
            re.findall(r"#[0-9a-f]{6}|fill: white", each)
        )


def test_the_card_is_of_a_question_that_only_the_learned_selector_gets_right(
    project: Made,
) -> None:
    """Grpo is right on questions 0 and 1 of four, sttr on 3: a quarter is 25 questions."""
    told = story(project.scores, "grpo", "sttr")
    assert told == Story(QUESTIONS[0], 2, 50, 25, 100)
    reader = open_reader(project.paths, project.examples)
    needing = story(project.scores, "grpo", "sttr", reader)
    assert needing
    assert reader.needs(needing.question) == ("language",)
    oracle = story(project.scores, "oracle", "sft")
    assert oracle
    assert (oracle.asked, oracle.only_learned, oracle.only_other) == (len(ORACLE), 20, 0)
    never = story(project.scores, "sft", "grpo")
    assert never
    assert (never.question, never.only_learned, never.only_other) == (QUESTIONS[0], 0, 25)
    assert story(project.scores, "grpo", "zero-shot") is None


def test_the_card_shows_what_was_chosen_and_answered(project: Made) -> None:
    methods = Methods(REGISTRY)
    reader = open_reader(project.paths, project.examples)
    html = card(project.scores, project.examples, methods, ("grpo", "sttr"), reader)
    told = story(project.scores, "grpo", "sttr", reader)
    assert told
    mine = project.scores[project.scores["query_id"] == told.question]
    text = Page(html).text
    assert "Only demonstrations can tell the model the language." in text
    assert "People answer:\nright, <b>also</b>" in text
    sides = {
        name: html.split(f"<h3>{explained(REGISTRY[name])}</h3>")[1] for name in ("grpo", "sttr")
    }
    sides["grpo"] = sides["grpo"].split("<h3>")[0]
    for name, side in sides.items():
        row = mine[(mine["method"] == name) & (mine["shot"] == 2)].iloc[0]
        shown = re.findall(r'alt="image of example (\d+):', side)
        assert [int(i) for i in shown] == list(row["pointer"])
        assert set(map(int, shown)) <= set(POOL)
        assert Page(side).text.count(project.examples[int(shown[0])].question) >= 1
        assert any(kind in side for kind in KINDS.values())
    assert '<strong>right</strong> <span class="mark">✓ right' in sides["grpo"]
    assert '<strong>sttr &lt;i&gt;</strong> <span class="mark">✗ wrong' in sides["sttr"]
    assert f"is right and similarity wrong on {told.only_learned} of 100 test questions" in text
    assert f"the reverse holds for {told.only_other}." in text


def test_the_card_has_no_markup_of_a_question(project: Made) -> None:
    html = card(project.scores, project.examples, REGISTRY, ("grpo", "sttr"))
    assert "&lt;/script&gt;" in html
    assert "<img src=x" not in html
    assert "Only demonstrations" not in html
    assert all(src.startswith("data:image/webp") for src in re.findall(r'src="([^"]*)"', html))
