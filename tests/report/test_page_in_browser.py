"""The page as a browser shows it: narrow, printed, dark, and without the network."""

from collections.abc import Iterator

import pytest
from report_world import Made

import chromium

pytestmark = pytest.mark.skipif(chromium.FOUND is None, reason="Chromium is not installed")
WIDEST = "document.documentElement.scrollWidth"
CLOSED = """[...document.querySelectorAll('details')].filter(
    d => [...d.children].slice(1).every(c => !c.checkVisibility())).length"""
CUT = """[...document.querySelectorAll('.scroll')].filter(
    s => s.checkVisibility() && (getComputedStyle(s).overflowX !== 'visible'
    || s.firstChild.getBoundingClientRect().right > innerWidth + 1)).length"""
PAPER_WIDTH = 688
"""Of A4 with 14 mm margins, in CSS pixels."""


@pytest.fixture(scope="module")
def tab(project: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Tab]:
    with chromium.opened(tmp_path_factory.mktemp("browser")) as tab:
        tab.size(1200, 900)
        tab.open((project.paths.report / "index.html").resolve().as_uri())
        tab.wait("document.querySelector('.decision h3')")
        yield tab


@pytest.fixture(autouse=True)
def screen(tab: chromium.Tab) -> Iterator[None]:
    yield
    tab.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("folds", ["closed", "open"])
def test_a_page_of_400_pixels_does_not_scroll_sideways(tab: chromium.Tab, folds: str) -> None:
    tab.size(400, 800)
    tab.value(
        "document.querySelectorAll('details').forEach("
        f"d => {{ d.open = {str(folds == 'open').lower()}; }})"
    )
    assert tab.value(WIDEST) == 400
    tab.value("document.querySelectorAll('details').forEach(d => { d.open = false; })")


def test_nothing_is_fetched_and_no_script_complains(tab: chromium.Tab) -> None:
    assert {address.partition(":")[0] for address in tab.requested} <= {"file", "data"}
    assert tab.said == []


def test_print_opens_the_folds_and_cuts_no_table_off(tab: chromium.Tab) -> None:
    tab.size(PAPER_WIDTH, 900)
    assert tab.value(CLOSED) == tab.value("document.querySelectorAll('details').length") > 10
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.value(CLOSED) == 0
    assert tab.value(CUT) == 0
    assert tab.value(WIDEST) == PAPER_WIDTH
    assert tab.value("getComputedStyle(document.querySelector('.printed')).display") == "block"


def test_a_script_opens_the_folds_where_the_style_sheet_can_not(tab: chromium.Tab) -> None:
    tab.size(1200, 900)
    closed = "document.querySelectorAll('details:not([open])').length"
    before = tab.value(closed)
    assert before > 20
    tab.value("dispatchEvent(new Event('beforeprint'))")
    assert tab.value(closed) == 0
    tab.value("dispatchEvent(new Event('afterprint'))")
    assert tab.value(closed) == before


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_text_of_plots_has_the_colour_of_the_page(tab: chromium.Tab, dark: bool) -> None:
    tab.size(1200, 900, dark=dark)
    text, plot, back = (
        tab.value(f"getComputedStyle(document.querySelector('{where}')).{what}")
        for where, what in (("body", "color"), ("svg text", "fill"), ("body", "backgroundColor"))
    )
    assert text == plot
    assert (back == "rgb(22, 22, 22)") == dark
