"""`evaluate.selectors`: a user's own factory becomes a row of the tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd
import pytest

from lever_plus.config.params import Params
from lever_plus.data.examples import Query
from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import evaluate_selector
from lever_plus.evaluation.methods import RANDOM, methods_of
from lever_plus.evaluation.summary import summarise
from lever_plus.features.embeddings import read_embeddings
from lever_plus.features.sources import Features, StoredFeatures
from lever_plus.selectors.baselines import RandomSelector
from lever_plus.selectors.registry import Context, make_selector, selector_names
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Scorer
from tiny_checkpoint import IDENTITY, embed
from tiny_world import TARGETS, TAU, Folders, World

MODULE = """
class Mine:
    def __init__(self, features, shift):
        self.features, self.shift = features, shift

    def select(self, query, pool, shots):
        assert self.features.queries([query]).shape[0] == 1
        return list(pool)[self.shift : self.shift + shots]

def second(context):
    return Mine(context.features, context.seed)

def odd(context):
    return [context]

class Watcher:
    def __init__(self, context):
        self.seen = context.seed

    def select(self, query, pool, shots):
        self.seen.append(query)
        return pool[:shots]

NUMBER = 3
"""


class CountingVlm:
    """A VLM that answers with the number of demonstrations that it was shown."""

    identity = IDENTITY

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        assert description
        return [str(len(request.demonstrations)) for request in requests]

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        raise AssertionError((requests, description))

    def prompt_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [10 + 15 * len(request.demonstrations) for request in requests]


@pytest.fixture(autouse=True)
def _on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "selectors_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def context(features: object = None, seed: object = 1) -> Context:
    """Return what factories get."""
    return Context(cast(Features, features), CountingVlm(), cast(int, seed))


def test_a_factory_named_in_params_is_a_row_with_interval_and_pairing(
    world: World, folders: Folders, params: Params, tmp_path: Path
) -> None:
    """It shows the pool from the second example on, so pointers are known; params give the seed."""
    embed(tmp_path / "features", world, folders)
    given = context(StoredFeatures(read_embeddings(tmp_path / "features"), world.examples))
    evaluate = params.evaluate.model_copy(update={"selectors": ["selectors_of_a_user:second"]})
    (name,) = selector_names(evaluate.selectors)
    own = make_selector(*evaluate.selectors, given)
    questions, pool = world.splits["test"], world.splits["train"][:6]
    pools = [pool] * len(questions)
    scorer = Scorer(given.vlm)
    scores = pd.concat(
        [
            evaluate_selector(scorer, RANDOM, 0, RandomSelector(0), questions, pools, 2),
            evaluate_selector(scorer, name, 0, own, questions, pools, 2),
        ]
    )
    chosen = scores[(scores["method"] == "second") & (scores["shot"] == 2)]
    assert {tuple(p) for p in chosen["pointer"]} == {tuple(e.question_id for e in pool[1:3])}
    assert set(chosen["answer"]) == {"2"}
    summary = summarise(scores, methods_of({"rce": TAU}, TARGETS, 3, [name]), 100, versus=[RANDOM])
    assert {row["name"]: row["kind"] for row in summary["methods"]}["second"] == "selector"
    rows = [row for row in summary["rows"] if row["method"] == "second"]
    assert [(row["shots"], row["n"]) for row in rows] == [(1, len(questions)), (2, len(questions))]
    assert all("ci95" in row for row in rows)
    paired = {(row["method"], row["versus"]) for row in summary["differences"]}
    assert paired == {("second", "random")}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("selectors_of_a_user:odd", "odd returned a list, which has no method select"),
        ("selectors_of_a_user:none", "selectors_of_a_user has no none"),
        ("selectors_of_a_user:NUMBER", "is of type int, not a function or a class"),
        ("selectors_of_nobody:second", "selectors_of_nobody cannot be imported"),
        ("second", "there is no second"),
    ],
)
def test_a_factory_that_makes_no_selector_is_named(factory: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^evaluate\.selectors: .*{message}"):
        make_selector(factory, context())


def test_two_factories_of_one_name_or_one_of_a_methods_are_refused() -> None:
    names = selector_names(["one:mine", "two:mine"])
    assert names == ["mine", "mine"]
    with pytest.raises(UserError, match="two methods are called mine"):
        methods_of({"rce": TAU}, TARGETS, 3, names)
    with pytest.raises(UserError, match="two methods are called sttr"):
        methods_of({"rce": TAU}, TARGETS, 3, selector_names(["one:sttr"]))


def test_a_class_is_a_factory_and_its_method_gets_queries_without_answers(world: World) -> None:
    seen: list[Query] = []
    selector = make_selector("selectors_of_a_user:Watcher", context(seed=seen))
    questions = world.splits["test"]
    pools = [world.splits["train"]] * len(questions)
    evaluate_selector(Scorer(CountingVlm()), "Watcher", 0, selector, questions, pools, 1)
    assert seen == [question.query for question in questions]
    assert all(type(query) is Query for query in seen)
