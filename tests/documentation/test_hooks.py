"""What the site does that MkDocs does not: links out of docs/, patterns in `nav`."""

import pytest

from documentation.pages import hooks


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
