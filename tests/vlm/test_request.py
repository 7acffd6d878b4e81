"""A request is its content: shared prefixes are adjacent, and the query's answer cannot leak."""

from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lever_plus.data.examples import Example, Query
from lever_plus.vlm.prompt import messages
from lever_plus.vlm.request import Request, VlmIdentity, prefix_order, scored_answer
from lever_plus.vlm.scorer import Asked, Scorer
from lever_plus.vlm.store.answers import Keys

IDENTITY = VlmIdentity(model="m", revision="r", dtype="float32", prompt_hash="h", generation="g")
ALIKE = [
    Example("a.png", "which?", "cat", image_sha256="s"),
    Example("a.png", "which?", "dog", image_sha256="s"),
    Example("a.png", "what?", "cat", image_sha256="s"),
    Example("b.png", "which?", "cat", image_sha256="t"),
]
"""Examples without ids; each differs from the first in one thing."""
QUERIES = [Query("q.png", f"question {i}?", "sha") for i in range(3)]
POINTERS = st.lists(st.sampled_from(ALIKE), max_size=4).map(tuple)
REQUESTS = st.lists(st.builds(Request, POINTERS, st.sampled_from(QUERIES)), max_size=30)


class Recorder:
    """A VLM that remembers what it was asked, and answers each query by its content."""

    identity = IDENTITY

    def __init__(self) -> None:
        """Start with nothing asked."""
        self.asked: list[Request] = []

    def answers(self, requests: Sequence[Request], **_: object) -> list[str]:
        self.asked += requests
        return ["-".join([e.answer for e in r.demonstrations]) for r in requests]

    def log_likelihoods(self, requests: Sequence[Request], **_: object) -> list[float]:
        self.asked += requests
        return [-float(len(scored_answer(r)) + len(r.demonstrations)) for r in requests]


@given(REQUESTS)
def test_requests_that_begin_alike_are_neighbours(requests: list[Request]) -> None:
    order = prefix_order(requests)
    assert sorted(order) == list(range(len(requests)))
    shown = [requests[i].demonstrations for i in order]
    for prefix in {s[:length] for s in shown for length in range(len(s) + 1)}:
        places = [i for i, s in enumerate(shown) if s[: len(prefix)] == prefix]
        assert places == list(range(places[0], places[-1] + 1))


@given(REQUESTS)
def test_equal_demonstrations_keep_their_order(requests: list[Request]) -> None:
    order = prefix_order(requests)
    for pointer in {r.demonstrations for r in requests}:
        places = [i for i in order if requests[i].demonstrations == pointer]
        assert places == sorted(places)


def test_what_ids_and_content_leave_open_is_ordered_by_appearance() -> None:
    """Sets of strings have another order in every process; batches must not."""
    files = [Example(f"{i}.png", "which?", "cat") for i in (3, 1, 4, 5, 9, 2, 6)]
    requests = [Request((example,), QUERIES[0]) for example in files]
    assert prefix_order(requests) == list(range(len(files)))


def test_a_query_has_no_answer() -> None:
    assert {field.name for field in fields(Query)} == {"image", "question", "image_sha256"}
    assert not hasattr(ALIKE[0].query, "answer")
    with pytest.raises(ValueError, match=r"no answer to score for 'question 0\?'"):
        scored_answer(Request((), QUERIES[0]))
    assert scored_answer(Request((), QUERIES[0], "")) == ""


def test_an_answer_is_asked_for_alike_whatever_the_answer_is() -> None:
    """The prompt, its key and the request contain the query, without its answer."""
    one = Example("q.png", "which?", "cat", ("cat",) * 10, 7, 7, "s")
    other = replace(one, answer="dog", answers=("dog",) * 10)
    shown = (ALIKE[3],)
    first, second = (Request(shown, example.query) for example in (one, other))
    assert first == second
    scored = first._replace(answer="cat")
    keys = Keys("answer", IDENTITY)
    assert keys.of(first) == keys.of(scored) == keys.of(scored._replace(answer="dog"))
    assert messages(shown, one) == messages(shown, other) == messages(shown, one.query)


def test_the_scorer_gives_an_answer_only_where_it_is_scored() -> None:
    vlm = Recorder()
    query = Example("q.png", "which?", "bird", ("bird",) * 10)
    Scorer(vlm).score_pointers([query], [ALIKE])
    assert [r.answer for r in vlm.asked] == [None] * 4
    vlm.asked.clear()
    Scorer(vlm).gt_probs([query], [ALIKE])
    assert [r.answer for r in vlm.asked] == ["bird"] * 4


def test_the_scorer_tells_examples_without_ids_apart() -> None:
    """Equal questions about equal images, each with its own answers; equal ids, other content."""
    queries = [replace(ALIKE[0], answer=a, answers=(a,) * 10) for a in ("cat", "dog-cat")]
    asked = [Asked((shown,), query) for query in queries for shown in ALIKE]
    asked += [Asked(tuple(ALIKE[1:3]), query) for query in queries]
    scorer = Scorer(Recorder())
    scores = scorer.score(asked)
    assert [s.answer for s in scores] == ["cat", "dog", "cat", "cat"] * 2 + ["dog-cat"] * 2
    assert [s.vqa_correct for s in scores] == [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    probs = scorer.gt_probs(queries, [ALIKE[:1]] * 2)
    assert probs[0, 0] > probs[1, 0]


def test_keys_tell_examples_without_ids_apart() -> None:
    for kind in ("answer", "log_likelihood"):
        keys = Keys(kind, IDENTITY)
        requests = [Request((example,), QUERIES[0], "x") for example in ALIKE]
        requests += [Request((), example.query, "x") for example in ALIKE[1:]]
        assert len({keys.of(request) for request in requests}) == len(requests)
