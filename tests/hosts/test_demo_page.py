"""The page shows what was computed; its server answers on loopback, and a browser shows it."""

import html
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
from hosts.conftest import Asked
from lever_plus import load_selector, open_vlm
from lever_plus.data.examples import Example, Query
from lever_plus.evaluation.methods import RANDOM, ZERO_SHOT
from lever_plus.features.similarities import STTR
from lever_plus.hosts.demo.play import LEARNED, STOPPING, Playground, Round
from lever_plus.hosts.demo.show import View, why
from lever_plus.hosts.demo.world import World, own_world
from lever_plus.selectors.learned import LearnedSelector
from servers import free_port, wait_until_healthy
from tiny_checkpoint import make_checkpoint
from tiny_world import Folders
from tiny_world import World as Data

pytest.importorskip("gradio", reason="extra [demo] is not installed")
from lever_plus.hosts.demo.page import Actions

NASTY = "<img src=x onerror=alert(1)> ${1+1} {{value}} & \"q\" 'a'"


@pytest.fixture(scope="module")
def stopping(
    tmp_path_factory: pytest.TempPathFactory, world: Data, folders: Folders
) -> LearnedSelector:
    """Knows prices up to 0.2, and shows two demonstrations at each of them."""
    folder = tmp_path_factory.mktemp("stopping")
    return load_selector(make_checkpoint(folder, world, folders, shots=3, stops_after=2))


@pytest.fixture(scope="module")
def play(stopping: LearnedSelector, world: Data) -> Playground:
    train, test = world.splits["train"], world.splits["test"]
    meanings = {train[0].question_id: "ink, in German", test[0].question_id: "digit, in French"}
    world_ = World("cards", train, test, meanings=meanings)
    return Playground(stopping, lambda: open_vlm("shipped:vlm", max_new_tokens=1), world_, 3)


@pytest.fixture(scope="module")
def found(play: Playground, world: Data) -> Round:
    return play.ask(world.splits["test"][0].query, 0.06)


def lines(page: str) -> str:
    """Return the text of HTML."""
    return html.unescape(re.sub(r"<[^>]*>", "\n", page))


def test_a_round_shows_every_method_with_its_demonstrations_and_its_answer(
    play: Playground, found: Round
) -> None:
    page = View(play).round(found)
    columns = [lines(part) for part in re.findall(r"<section.*?</section>", page, re.DOTALL)]
    names = [column.split("\n", 3)[2].strip() for column in columns]
    assert names == ["no demonstrations", "random", "similar", "learned", "learned, stops"]
    assert "nearest by question text" in columns[2]
    for column, shown in zip(columns, found.shown, strict=True):
        places = [column.index(f"{e.question}\n\n{e.answer}") for e in shown.examples]
        assert places == sorted(places)
        assert shown.score is not None
        mark = "✓ right" if shown.score.vqa_correct else "✗ wrong"
        assert f"{shown.answer}\n{mark}, accuracy {shown.score.vqa_acc_score:.1f}" in column
    assert page.count("<img src=") == sum(len(shown.examples) for shown in found.shown)
    assert "It asks for the digit, in French." in lines(page)


def test_the_steps_show_the_probabilities_and_where_the_policy_stopped(found: Round) -> None:
    page = why(found)
    steps = [lines(part) for part in page.split('<div class="lp-step">')[1:]]
    learned = found.of(LEARNED)
    assert learned is not None
    assert len(steps) == len(learned.steps) == 3
    for text, step in zip(steps, learned.steps, strict=True):
        assert f"of {step.choices} candidates" in text
        for candidate in step.top:
            assert candidate.example.question in text
            assert f"{100 * candidate.probability:.0f} %" in text
    assert "it continued" in steps[0]
    assert "stopping before this pick: 38 %; it continued" in steps[1]
    assert f"A demonstration is not worth 0.06, so “{STOPPING}” ends here" not in page
    assert f"62 %. Another demonstration is not worth 0.06, so “{STOPPING}”" in steps[2]


def test_texts_stay_texts(play: Playground, found: Round, world: Data) -> None:
    nasty = Example(world.splits["train"][0].image, NASTY, NASTY)
    view = View(play)
    shown = found.shown[1]._replace(examples=(nasty,), answer=NASTY, notes=(NASTY,), score=None)
    truth = Example(nasty.image, NASTY, NASTY, (NASTY,) * 10)
    page = view.round(Round(Query(nasty.image, NASTY), truth, (shown,)))
    assert "<img src=x" not in page
    assert lines(page).count(NASTY) == 6


def test_whatever_goes_wrong_is_a_sentence_on_the_page(
    play: Playground, stopping: LearnedSelector, asked: Asked, tmp_path: Path
) -> None:
    actions = Actions(play)
    image = asked.queries[0].image
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for given, question, price, said in (
        (None, "What?", 0.06, "there is no image yet"),
        (image, "", 0.06, "has no text"),
        (str(text), "What?", 0.06, "cannot be read"),
        (image, "What?", 0.9, "prices from 0 to 0.2, not 0.9"),
    ):
        page, round_, _, _, _, _, hand, *_ = actions.ask(given, question, price)
        assert said in page
        assert 'role="alert"' in page
        assert (round_, hand) == (None, [])
    file, page = actions.upload(str(text), "What?")
    assert file is None
    assert "it is none of JPEG" in page
    assert "no question was asked yet" in actions.again(None, [1])
    assert "be shown before this question" in actions.again(play.ask(asked.queries[0]), [77])
    few = Playground(stopping, lambda: play.vlm, own_world("few", play.world.pool[:2]), 3)
    assert "use a larger pool, or fewer shots" in Actions(few).ask(image, "What?", 0.0)[0]


def test_a_hand_is_moved_removed_and_added_to(play: Playground, found: Round) -> None:
    actions = Actions(play)
    assert actions.moved([1, 2, 3], 1, -1) == [2, 1, 3]
    assert actions.moved([1, 2, 3], 1, 1) == [1, 3, 2]
    assert actions.moved([1, 2, 3], 0, -1) == actions.moved([1, 2, 3], 2, 1) == [1, 2, 3]
    assert actions.removed([1, 2, 3], 1) == [1, 3]
    assert actions.add([1, 2], found, 3)[:2] == [None, [1, 2, 3]]
    assert actions.add([1, 2], found, 1)[:2] == [None, [2, 1]]
    assert actions.add([1, 2], found, None)[:2] == [None, [1, 2]]
    assert actions.add([*range(8)], found, 9)[:2] == [None, [*range(8)]]
    for method in (RANDOM, STTR, LEARNED, STOPPING):
        shown = found.of(method)
        assert shown is not None
        assert actions.start(found, method)[0] == [e.question_id for e in shown.examples]
    assert actions.start(found, ZERO_SHOT)[0] == actions.start(None, LEARNED)[0] == []


def test_the_rows_show_a_hand_in_its_order(play: Playground, found: Round) -> None:
    one, two = play.world.pool[:2]
    hand, *rows = Actions(play).held([two.question_id, one.question_id], found)
    view = View(play)
    assert hand == [two.question_id, one.question_id]
    assert rows[1::3][:3] == [view.card(two, "1 of 2"), view.card(one, "2 of 2"), ""]
    assert [row["visible"] for row in rows[::3]] == [True, True] + [False] * 6
    assert [later["interactive"] for later in rows[2::3]][:2] == [True, False]


def test_asking_begins_a_hand_with_what_the_policy_shows(play: Playground, world: Data) -> None:
    example = world.splits["test"][0]
    outputs = Actions(play).ask(example.image, example.question, 0.06)
    page, round_, start, more, _, said, hand, *rows = outputs
    assert said == ""
    assert [row["visible"] for row in rows[::3]] == [True, True] + [False] * 6
    assert page == View(play).round(round_)
    assert hand == [e.question_id for e in round_.of(STOPPING).examples]
    assert [value for _, value in start["choices"]] == [RANDOM, STTR, LEARNED, STOPPING]
    assert {value for _, value in more["choices"]} == {e.question_id for e in play.world.pool}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, world: Data, folders: Folders
) -> Iterator[str]:
    """The command itself, with a checkpoint, a pool with human answers, and the shipped VLM."""
    folder = tmp_path_factory.mktemp("server")
    checkpoint = make_checkpoint(folder, world, folders, shots=3, stops_after=2)
    names = ("image", "question", "answers", "question_id", "image_id")
    rows = [{name: getattr(e, name) for name in names} for e in world.splits["train"]]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    port = free_port()
    command = [sys.executable, "-m", "lever_plus.cli.main", "demo", "--checkpoint", checkpoint]
    command += ["--pool", "pool.jsonl", "--vlm", "shipped:vlm", "--port", str(port)]
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(address, folder / "log", process=process)
        yield address
    finally:
        process.terminate()
        process.wait(60)
    # Uploads go with the server, and nothing went wrong that it only told its terminal.
    assert not [path for path in (folder / "tmp").rglob("*") if path.is_file()]
    assert (folder / "log").read_text().splitlines() == [f"the page is at {address}"]


@pytest.mark.slow
def test_the_server_answers_as_the_playground_does(
    server: str, stopping: LearnedSelector, world: Data
) -> None:
    gradio_client = pytest.importorskip("gradio_client", reason="extra [demo] is not installed")
    client = gradio_client.Client(server, verbose=False, analytics_enabled=False)
    train = world.splits["train"]
    asked = train[2]
    client.predict(gradio_client.handle_file(asked.image), asked.question, api_name="/upload")
    page, *_ = client.predict(asked.question, 0.06, api_name="/ask")
    vlm = open_vlm("shipped:vlm")
    play = Playground(stopping, lambda: vlm, own_world("cards", train), 3)
    assert lines(page) == lines(View(play).round(play.ask(asked.query, 0.06)))
    assert page.count("✓ right") + page.count("✗ wrong") == 5
    client.predict(LEARNED, api_name="/start")
    said = client.predict(api_name="/again")
    learned = play.ask(asked.query).of(LEARNED)
    assert learned is not None
    assert '<p class="lp-answer' in said
    assert lines(said).count("\n" + learned.answer + "\n") >= 1


@pytest.mark.slow
def test_nothing_is_answered_by_another_name_or_from_elsewhere(server: str) -> None:
    with urllib.request.urlopen(server, timeout=60) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    request = urllib.request.Request(server, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=60)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[chromium.Tab]:
    if chromium.FOUND is None:
        pytest.skip("no Chromium to look at the page with (Debian: apt-get install chromium)")
    with chromium.opened(tmp_path) as tab:
        yield tab


ANSWERS = ".lp-method .lp-answer"
CARDS = ".lp-moves .lp-card"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)], ids=["wide", "narrow"])
def test_a_browser_shows_the_answers_and_lets_a_hand_change_them(
    server: str, tab: chromium.Tab, width: int, dark: bool
) -> None:
    tab.size(width, 1400, dark=dark)
    tab.open(server)
    tab.wait(f"document.querySelectorAll('{ANSWERS}').length === 5")
    assert all(re.search("(right|wrong), accuracy", text) for text in tab.texts(ANSWERS))
    heads = [text.splitlines()[0] for text in tab.texts(".lp-method h3")]
    assert heads[:3] == ["no demonstrations zero-shot", "random", "similar sttr"]
    assert heads[3:] == ["learned", "learned, stops"]
    assert len(tab.texts(".lp-step")) == 3
    assert tab.value("document.documentElement.scrollWidth") <= width
    # Another question of the gallery.
    question = tab.texts(".lp-head h2")[0]
    tab.value("document.querySelectorAll('.lp-gallery .thumbnail-item')[1].click()")
    tab.wait(f"document.querySelector('.lp-head h2').innerText !== {json.dumps(question)}")
    # By hand: what the policy shows changes places and is removed, and the VLM is asked again.
    tab.wait(f"document.querySelectorAll('{CARDS}').length === 2")
    one, two = [card.splitlines()[:2] for card in tab.texts(CARDS)]
    assert one != two
    for name, place, first, second in (("later", 0, two, one), ("earlier", 1, one, two)):
        tab.press(name, place)
        tab.wait(f"document.querySelector('{CARDS}').innerText.startsWith({json.dumps(first[0])})")
        assert [card.splitlines()[:2] for card in tab.texts(CARDS)] == [first, second]
    for left in (1, 0):
        tab.press("remove")
        tab.wait(f"document.querySelectorAll('{CARDS}').length === {left}")
    tab.press("Ask again")
    tab.wait(f"document.querySelectorAll('{ANSWERS}').length === 6")
    answers = tab.texts(ANSWERS)
    assert answers[5] == answers[0]
    assert tab.said == []
    hosts = {re.split("[/:]+", url)[1] for url in tab.requested if url.startswith("http")}
    assert hosts == {"127.0.0.1"}
