"""What the site does that MkDocs does not: links out of docs/, patterns in `nav`, flowcharts."""

import pytest

from documentation.pages import flowchart, hooks

CHART = "```mermaid\nflowchart LR\n\tprepare --> embed\n\tprepare --> pool\n\tembed --> pool\n```\n"


@pytest.mark.parametrize(
    ("link", "folder", "here", "expected"),
    [
        ("[x](training.md)", "docs", "", "[x](training.md)"),
        ("[x](../training.md#losses)", "docs/guides", "guides", "[x](../training.md#losses)"),
        ("[x](../EXPERIMENTS.md)", "docs", "", "[x](EXPERIMENTS.md)"),
        ("[x](../../EXPERIMENTS.md)", "docs/guides", "guides", "[x](../EXPERIMENTS.md)"),
        ("[x](docs/training.md#a)", "", "", "[x](training.md#a)"),
        ("[x](../../README.md#run-it)", "docs/guides", "guides", "[x](../index.md)"),
        ("[x](../../recipes/house_words)", "docs/guides", "guides", "x"),
        ("[x](../params.yaml)", "docs", "", "x"),
        ("[x](https://visualqa.org)", "docs", "", "[x](https://visualqa.org)"),
        ("[x](#here)", "docs", "", "[x](#here)"),
        ("[x](../gone.md)", "docs", "", "[x](../gone.md)"),
        ("![x](demo.png)", "docs", "", "![x](demo.png)"),
        ("![x](docs/demo.png)", "", "", "![x](demo.png)"),
    ],
)
def test_links_lead_to_where_pages_are_on_the_site(
    link: str, folder: str, here: str, expected: str
) -> None:
    found = hooks.LINK.sub(lambda each: hooks.moved(each, folder, here), link)
    assert found == expected


def test_a_pattern_in_nav_is_the_pages_that_are_not_named() -> None:
    pages = ["guides/a.md", "guides/b.md", "guides/deep/c.md", "index.md", "new.md"]
    nav = ["index.md", {"Guides": ["guides/b.md", "guides/*.md"]}, {"More": ["*.md"]}]
    assert hooks.expanded(nav, pages, {"index.md", "guides/b.md"}) == [
        "index.md",
        {"Guides": ["guides/b.md", "guides/a.md"]},
        {"More": ["new.md"]},
    ]


def test_a_flowchart_becomes_a_picture_with_its_arrows_from_top_to_bottom() -> None:
    page = flowchart.with_pictures(f"before\n\n{CHART}\nafter")
    assert page.startswith("before\n\n<figure")
    assert page.endswith("</figure>\n\nafter")
    assert page.count("<rect") == 3
    assert page.count('class="tip"') == 3
    arrows = [("prepare", "embed"), ("prepare", "pool"), ("embed", "pool")]
    assert flowchart.rows_of(arrows) == [["prepare"], ["embed"], ["pool"]]


@pytest.mark.parametrize(
    "text",
    [
        CHART.replace("flowchart LR", "sequenceDiagram"),
        CHART.replace("embed --> pool", "embed -- yes --> pool"),
        CHART.replace("embed --> pool", "pool --> prepare"),
    ],
    ids=["other kind", "other arrow", "circle"],
)
def test_another_diagram_stays_code(text: str) -> None:
    assert flowchart.with_pictures(text) == text
