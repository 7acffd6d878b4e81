"""Shared prefixes with queries and examples of any origin: the results of whole prompts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lever_plus.config.params import Params
from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.engine import segments as module
from lever_plus.vlm.engine.segments import Item, Segments
from lever_plus.vlm.request import Request
from tiny_world import Folders, World

Load = Callable[..., HuggingFaceVlm]


@pytest.fixture(scope="module")
def load(folders: Folders, params: Params) -> Load:
    """Load the tiny VLM with other settings."""

    def load(**settings: object) -> HuggingFaceVlm:
        defaults = {"max_new_tokens": 3, "batch_tokens": 400}
        changed = params.vlm.model_copy(update={**defaults, **settings})
        assert changed.kind == "huggingface"
        return HuggingFaceVlm(str(folders.vlm), changed)

    return load


@pytest.fixture(scope="module")
def whole(load: Load) -> HuggingFaceVlm:
    """The reference: whole prompts."""
    return load(prefix_reuse=False)


@pytest.fixture
def segments(load: Load, world: World) -> Segments:
    """Segments of a VLM that has been tried."""
    vlm = load()
    vlm.load([Request((), world.splits["dev"][0].query)])
    assert vlm.engine is not None
    return vlm.engine.segments


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that segments are made of, in their order."""
    paths: list[str] = []
    open_image = module.open_image

    def counted(path: str) -> object:
        paths.append(path)
        return open_image(path)

    monkeypatch.setattr(module, "open_image", counted)
    return paths


def both(requests: Sequence[Request], vlm: HuggingFaceVlm, whole: HuggingFaceVlm) -> None:
    """Compare answers without the queries' own, and likelihoods where there is an answer."""
    asked = [request._replace(answer=None) for request in requests]
    answers = whole.answers(asked)
    assert vlm.answers(asked) == answers
    assert len(set(answers)) > 1
    scored = [request for request in requests if request.answer is not None]
    values = whole.log_likelihoods(scored)
    np.testing.assert_allclose(vlm.log_likelihoods(scored), values, atol=1e-4)
    assert vlm.engine is not None
    assert whole.engine is None


def test_a_query_takes_the_segment_of_an_example_that_asks_the_same(
    segments: Segments, world: World, opened: list[str]
) -> None:
    example, other = world.splits["train"][:2]
    asked = Item(example.query, None)
    segments.prepare([example], [asked, Item(other.query, None)])
    assert sorted(opened) == sorted([example.image, other.image])
    assert asked not in segments._made
    same, alone = segments.asked([Request((), example.query), Request((), other.query)]).tolist()
    assert [same] == segments.shown([example]).tolist()
    assert alone != same
    # Later calls, too: the example is not there any more, its segment is.
    segments.prepare([], [asked])
    assert len(opened) == 2
    assert segments.asked([Request((), example.query)]).tolist() == [same]


def test_a_query_keeps_its_segment_when_an_example_asks_the_same_later(
    segments: Segments, world: World
) -> None:
    example = world.splits["train"][0]
    asked, shown = Item(example.query, None), Item(example.query, example.answer)
    segments.prepare([], [asked])
    segments.prepare([example], [asked])
    assert {asked, shown} <= segments._made.keys()
    one, two = segments._made[asked], segments._made[shown]
    # Either begins with the query's own turn: which is taken changes nothing.
    first, second = one.features.embeds, two.features.embeds
    assert one.query == two.query == len(first) < len(second)
    np.testing.assert_allclose(first, second[: two.query], atol=1e-5)
    assert (one.answer, len(two.answer)) == ((), len(second[two.query :]) - 1)


def test_queries_of_the_pool_and_of_nobody_equal_whole_prompts(
    load: Load, whole: HuggingFaceVlm, world: World
) -> None:
    pool = world.splits["train"][:5]
    pointers = [(), (pool[1], pool[2]), (pool[3], pool[0]), (pool[4], pool[3], pool[0])]
    unknown = [Query(e.image, f"{e.question} {e.question}") for e in world.splits["test"][:3]]
    queries = [(e.query, e.answer) for e in pool[:3]] + [(query, None) for query in unknown]
    both([Request(p, query, answer) for p in pointers for query, answer in queries], load(), whole)


def test_examples_without_ids_are_told_apart(
    load: Load, whole: HuggingFaceVlm, world: World
) -> None:
    """Each demonstration differs from the first in one thing; nothing has an id or a hash."""
    one, two, *_ = world.splits["train"]
    first = Example(one.image, one.question, one.answer)
    words = sorted({e.answer for e in world.splits["train"]} - {one.answer})
    pool = [
        first,
        replace(first, answer=words[0]),
        replace(first, question=f"{two.question} {one.question}"),
        replace(first, image=two.image),
    ]
    queries = [(pool[3].query, answer) for answer in words[:2]] + [(pool[0].query, None)]
    requests = [Request((e,), query, answer) for e in pool for query, answer in queries]
    requests += [Request((a, b), *queries[0]) for a in pool for b in pool if a is not b]
    vlm = load()
    both(requests, vlm, whole)
    values = vlm.log_likelihoods([r for r in requests if r.answer is not None])
    gaps = np.diff(np.sort(values))
    assert gaps.min() > 1e-6, "the requests must differ for this to prove something"


def test_stretches_under_a_tiny_budget_give_the_same(
    load: Load, whole: HuggingFaceVlm, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments are dropped between stretches, even those that queries share with examples."""
    pool, few = world.splits["train"][:6], world.splits["train"][6:14]
    asked = [Query(e.image, q.question) for e in world.splits["train"] for q in few]
    requests = [
        Request((pool[i % 6], pool[(i + 1) % 6]), query, few[i % 8].answer if i % 3 else None)
        for i, query in enumerate(asked)
    ]
    requests += [Request((pool[0],), e.query) for e in pool[1:]]
    requests += [Request((pool[5],), e.query) for e in pool[:5]]
    tiny = load(segment_megabytes=0)
    stretches: list[int] = []
    prepare = Segments.prepare

    def counted(self: Segments, examples: Collection[Example], items: Collection[Item]) -> None:
        stretches.append(len(items))
        prepare(self, examples, items)

    tiny.load(requests)
    monkeypatch.setattr(Segments, "prepare", counted)
    picked = requests[:-10:2] + requests[-10:]
    answers = tiny.answers(picked)
    assert len(stretches) >= 2
    assert max(stretches) < len({r.query for r in picked})
    scored = [r for r in picked if r.answer is not None]
    values = tiny.log_likelihoods(scored)
    roomy = load()
    assert roomy.answers(picked) == answers == whole.answers(picked)
    np.testing.assert_allclose(roomy.log_likelihoods(scored), values, atol=1e-5)
    np.testing.assert_allclose(whole.log_likelihoods(scored), values, atol=1e-4)


def test_an_image_that_cannot_be_read_spoils_nothing_else(
    segments: Segments, world: World, tmp_path: Path
) -> None:
    """The one before it was made already, and can be asked for."""
    segments._batch = 1
    good = Item(world.splits["train"][0].query, None)
    bad = Item(Query(str(tmp_path / "no.png"), "what?", "z"), None)
    with pytest.raises(UserError, match=r"no.png cannot be read"):
        segments.prepare([], [good, bad])
    assert good in segments._made
    segments.prepare([], [good])
    assert len(segments.asked([Request((), good.query)])) == 1


def test_an_engine_whose_trial_failed_is_tried_again(
    load: Load, world: World, tmp_path: Path
) -> None:
    """An image that cannot be read says nothing about sharing prefixes."""
    vlm, query = load(), world.splits["dev"][0].query
    broken = replace(world.splits["train"][0], image=str(tmp_path / "no.png"))
    with pytest.raises(UserError, match=r"no.png cannot be read"):
        vlm.answers([Request((broken,), query)])
    vlm.answers([Request((), query)])
    assert vlm.engine is not None
