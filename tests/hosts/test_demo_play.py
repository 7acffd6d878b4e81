"""The page shows what the selectors choose, why they choose it, and what the VLM answers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hosts.conftest import Asked
from lever_plus import load_selector, open_vlm
from lever_plus.data.examples import Example, Query, hashed_query
from lever_plus.errors import PointerError, UserError
from lever_plus.evaluation.methods import RANDOM, ZERO_SHOT
from lever_plus.features.similarities import STTR
from lever_plus.hosts.demo import play as demo
from lever_plus.hosts.demo.play import LEARNED, STOPPING, Playground
from lever_plus.hosts.demo.why import explain
from lever_plus.hosts.demo.world import World, own_world
from lever_plus.policy.decoding import greedy
from lever_plus.policy.network import Encoded, Policy
from lever_plus.selectors.baselines import RandomSelector, SimilaritySelector
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.live_pool import LivePool
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import score_answer
from lever_plus.vlm.store.cached import StoredVlm
from tiny_checkpoint import make_checkpoint
from tiny_world import Folders
from tiny_world import World as Data
from trained_selector import SHOTS

VLM = "shipped:vlm"
QUERIES = 12


def shipped() -> StoredVlm:
    return open_vlm(VLM, max_new_tokens=1)


@pytest.fixture(scope="module")
def play(trained: LearnedSelector, asked: Asked) -> Playground:
    world = World("cards", asked.pool, asked.examples[:QUERIES])
    return Playground(trained, shipped, world, SHOTS, seed=5)


@pytest.fixture(scope="module")
def stopping(
    tmp_path_factory: pytest.TempPathFactory, world: Data, folders: Folders
) -> LearnedSelector:
    """Knows prices up to 0.2, and shows one demonstration at each of them."""
    folder = tmp_path_factory.mktemp("stopping")
    return load_selector(make_checkpoint(folder, world, folders, shots=3, stops_after=1))


def test_every_method_shows_what_its_selector_chooses(play: Playground, asked: Asked) -> None:
    similar = SimilaritySelector(play.selector.features)
    for query, learned in zip(asked.queries[:QUERIES], asked.chosen, strict=False):
        found = play.ask(query)
        assert [shown.method for shown in found.shown] == [ZERO_SHOT, RANDOM, STTR, LEARNED]
        assert [list(shown.examples) for shown in found.shown] == [
            [],
            RandomSelector(5).select(query, asked.pool, SHOTS),
            similar.select(query, asked.pool, SHOTS),
            list(learned),
        ]


def test_the_probabilities_are_the_policys(trained: LearnedSelector, asked: Asked) -> None:
    seen: list[list[list[float]]] = []

    def decode(policy: Policy, encoded: Encoded, shots: int) -> object:
        found = greedy(policy, encoded, shots)
        before = policy.step_log_probs(encoded, found.pointers[:, :, :-1])
        seen.append(before[0, 0].exp().tolist())
        return found

    for query, chosen in zip(asked.queries[:QUERIES], asked.chosen, strict=False):
        ((selection,),) = trained.decode([query], [asked.pool], SHOTS, decode)  # type: ignore[arg-type]
        why = explain(trained, query, asked.pool, SHOTS)
        assert why.examples == chosen
        assert why.stopped is None
        for place, (step, row) in enumerate(zip(why.steps, seen[-1], strict=True)):
            assert step.choices == len(asked.pool) - place
            assert step.picked.example == chosen[place]
            assert step.picked.probability == pytest.approx(math.exp(selection.log_probs[place]))
            expected = sorted(row, reverse=True)
            assert [c.probability for c in step.top] == pytest.approx(expected[: len(step.top)])
            at = {example: row[i] for i, example in enumerate(asked.pool)}
            assert all(c.probability == pytest.approx(at[c.example]) for c in step.top)
            assert step.others == pytest.approx(sum(expected[len(step.top) :]), abs=1e-5)
            assert step.stop is None


@pytest.mark.parametrize("price", [0.0, 0.05, 0.2])
def test_a_policy_that_stops_says_where_and_how_sure_it_was(
    stopping: LearnedSelector, world: Data, price: float
) -> None:
    pool = world.splits["train"]
    query = world.splits["test"][0].query
    priced = LearnedSelector(stopping.policy, stopping.features, price)
    why = explain(priced, query, pool, 3)
    assert list(why.examples) == priced.select(query, pool, 3)
    assert len(why.examples) == 1
    assert why.examples == explain(stopping, query, pool, 3).examples[:1]
    stops = [step.stop for step in why.steps]
    # The head is made so that its log-odds are these, whatever it sees.
    assert stops == pytest.approx(torch.sigmoid(torch.tensor([-0.5, 0.5])).tolist())
    assert why.stopped is why.steps[1]


def test_with_a_price_there_is_one_method_more(stopping: LearnedSelector, world: Data) -> None:
    play = Playground(stopping, shipped, own_world("cards", world.splits["train"]), 3)
    query = world.splits["test"][0].query
    assert play.ask(query).of(STOPPING) is None
    shown = play.ask(query, 0.1).of(STOPPING)
    assert shown is not None
    assert (len(shown.examples), len(shown.steps), shown.price) == (1, 2, 0.1)
    assert play.first_price() == pytest.approx(0.06)
    assert play.first_price(0.2) == 0.2
    with pytest.raises(UserError, match=r"prices from 0 to 0\.2, not 0\.3"):
        play.first_price(0.3)
    with pytest.raises(UserError, match=r"prices from 0 to 0\.2, not 0\.3"):
        play.ask(query, 0.3)


def test_answers_are_the_vlms_and_marked_by_the_official_metric(
    play: Playground, asked: Asked
) -> None:
    vlm = shipped()
    marks = set()
    for example in asked.examples[:QUERIES]:
        found = play.ask(example.query)
        requests = [Request(shown.examples, example.query) for shown in found.shown]
        answers = vlm.answers(requests)
        assert [shown.answer for shown in found.shown] == answers
        assert found.truth == example
        assert [s.score for s in found.shown] == [score_answer(a, example) for a in answers]
        marks |= {shown.score.vqa_correct for shown in found.shown if shown.score}
    assert marks == {0, 1}


def test_nothing_is_marked_where_the_truth_is_not_known(play: Playground, asked: Asked) -> None:
    """The same image with another question, and the same question about another image."""
    example, other = asked.examples[0], asked.examples[1]
    for query in (
        Query(example.image, f"{example.question} Why?"),
        Query(other.image, example.question),
        asked.queries[QUERIES],
    ):
        found = play.ask(hashed_query(query))
        assert found.truth is None
        assert {shown.score for shown in found.shown} == {None}


def test_an_answer_without_ten_humans_answers_is_not_marked(
    trained: LearnedSelector, asked: Asked
) -> None:
    known = replace(asked.examples[0], answers=("red", "red"))
    found = Playground(trained, shipped, World("a", asked.pool, [known]), SHOTS).ask(known.query)
    assert found.truth == known
    assert {shown.score for shown in found.shown} == {None}


class Recorder:
    """A VLM that records its requests."""

    def __init__(self) -> None:
        """Start without requests."""
        self.asked: list[Request] = []

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        assert description
        self.asked = list(requests)
        return ["red"] * len(requests)


def test_a_hand_decides_what_is_in_the_prompt_and_in_which_order(
    trained: LearnedSelector, asked: Asked
) -> None:
    vlm = Recorder()
    world = World("cards", asked.pool, asked.examples[:1])
    play = Playground(trained, lambda: vlm, world, SHOTS)  # type: ignore[return-value,arg-type]
    query, one, two = asked.queries[0], asked.pool[3], asked.pool[9]
    for examples in ((one, two), (two, one), (two,), ()):
        shown = play.ask_by_hand(query, [example.question_id for example in examples])
        assert vlm.asked == [Request(examples, query)]
        assert (shown.examples, shown.answer) == (examples, "red")
        assert shown.score == score_answer("red", asked.examples[0])


def test_a_hand_may_not_show_what_a_selector_may_not(play: Playground, asked: Asked) -> None:
    query, number = asked.queries[0], asked.pool[0].question_id
    with pytest.raises(PointerError, match="example 77 can't be shown"):
        play.ask_by_hand(query, [number, 77])
    with pytest.raises(PointerError, match="chosen twice"):
        play.ask_by_hand(query, [number, number])
    with pytest.raises(PointerError, match="has another image"):
        play.ask_by_hand(asked.pool[0].query, [number])
    with pytest.raises(UserError, match="9 demonstrations are too many: choose at most 8"):
        play.ask_by_hand(query, [example.question_id for example in asked.pool[:9]])


def test_a_question_of_the_gallery_has_its_own_pool(trained: LearnedSelector, asked: Asked) -> None:
    mine, other = asked.examples[:2]
    own = asked.pool[:8]
    world = World("cards", asked.pool, [mine, other], {mine.question_id: own})
    play = Playground(trained, shipped, world, SHOTS)
    assert play.candidates(mine.query) == own
    assert play.candidates(other.query) == asked.pool
    assert play.candidates(Query(mine.image, "What?")) == asked.pool
    shown = play.ask(mine.query).of(LEARNED)
    assert shown is not None
    assert list(shown.examples) == trained.select(mine.query, own, SHOTS)


def test_of_a_large_pool_the_policy_sees_what_a_live_pool_shows_it(
    trained: LearnedSelector, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CANDIDATES", 10)
    live = LivePool(trained, asked.pool, candidates=10)
    play = Playground(trained, shipped, own_world("cards", asked.pool), SHOTS)
    for query in asked.queries[:QUERIES]:
        shown = play.ask(query).of(LEARNED)
        assert shown is not None
        assert list(shown.examples) == live.select(query, SHOTS)
        assert shown.steps[0].choices == 10


def test_questions_of_a_pool_of_ones_own_are_shown_the_others(
    trained: LearnedSelector, asked: Asked
) -> None:
    play = Playground(trained, shipped, own_world("cards", asked.pool), SHOTS)
    assert play.gallery == asked.pool[:12]
    mine = asked.pool[0]
    found = play.ask(mine.query)
    assert found.truth == mine
    images = {example.image_sha256 for shown in found.shown for example in shown.examples}
    assert mine.image_sha256 not in images


def test_what_cannot_be_asked_is_a_sentence(
    play: Playground, trained: LearnedSelector, asked: Asked, tmp_path: Path
) -> None:
    image, text = asked.queries[0].image, tmp_path / "text.png"
    text.write_text("no picture")
    for given, question, said in (
        (None, "What?", "there is no image yet"),
        (image, " ", '"question" has no text'),
        (str(text), "What?", f"image {text} cannot be read"),
    ):
        with pytest.raises(UserError, match=said):
            play.query(given, question)
    with pytest.raises(UserError, match="can pick 1 to 2 demonstrations, but 3 were asked for"):
        Playground(trained, shipped, play.world, 3)
    few = Playground(trained, shipped, World("few", asked.pool[:1]), SHOTS)
    with pytest.raises(UserError, match="use a larger pool, or fewer shots"):
        few.ask(asked.queries[0])
    gone = Example("gone.png", "What?", "red")
    with pytest.raises(UserError, match=r"gone\.png cannot be read"):
        Playground(trained, shipped, World("gone", asked.pool, [gone]), SHOTS)
