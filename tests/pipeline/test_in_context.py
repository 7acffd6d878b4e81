"""Stage in_context: what the VLM is asked, and what is written for a user's own data."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from lever_plus.config.file import changed_params, load_params
from lever_plus.config.settings import settings_of
from lever_plus.data.examples import Example, Query, read_splits
from lever_plus.house_words.maker import HALVES, read_latent
from lever_plus.pipeline import in_context, prepare
from lever_plus.pipeline.paths import Paths
from lever_plus.vlm.request import Request
from lever_plus.vlm.usage import Usage
from pipeline.formula_world import Ran
from tiny_world import ROOT

SOURCE = {"kind": "embedded", "train": 400, "dev": 30, "test": 4, "image_size": 40}
CHANGES = {
    "data": {"source": SOURCE, "rl_queries": 300, "sft_queries": 10},
    "in_context": {"probes": 9},
}


class Twins:
    """Reads a word only after a demonstration that answers in the same attribute and language."""

    def __init__(self, paths: Paths) -> None:
        """Read the hidden meanings."""
        self.hidden = read_latent(paths.source)
        self.splits = read_splits(paths.prepare, paths.root)
        self.dev = {e.image: e for e in self.splits["dev"]}
        self.checked: list[Example | Query] = []
        self.asked: list[Request] = []
        self.usage = Usage()

    def check(self, examples: list[Example | Query]) -> None:
        self.checked += examples

    def answers(self, requests: list[Request], *, description: str) -> list[str]:
        self.asked += requests
        return [self.answer(request) if description else "" for request in requests]

    def answer(self, request: Request) -> str:
        example = self.dev[request.query.image]
        key = self.hidden[example.question_id].key
        told = any(self.hidden[e.question_id].key == key for e in request.demonstrations)
        return example.answer if told or not request.demonstrations else "?"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    prepare.run(settings_of(prepare.Settings, params()), paths)
    return paths


def params() -> Any:
    return changed_params(load_params(ROOT / "params.yaml"), CHANGES)


def test_dev_questions_are_asked_after_training_examples(paths: Paths) -> None:
    vlm = Twins(paths)
    settings = settings_of(in_context.Settings, params())
    told = in_context.run(settings, paths, cast(Any, vlm))
    train = {e.question_id for e in vlm.splits["train"]}
    assert {e.question_id for r in vlm.asked for e in r.demonstrations} <= train
    assert {r.query.image for r in vlm.asked} <= vlm.dev.keys()
    assert len(vlm.checked) == 430
    assert len(vlm.asked) == 10 * 9
    house = {i for i, latent in vlm.hidden.items() if latent.needs == HALVES}
    assert all(vlm.dev[r.query.image].question_id in house for r in vlm.asked[9:])
    table = json.loads((paths.metrics / "in_context.json").read_text())
    assert table["plain"] == table["none"] == table["twin"] == 1
    assert table["half_attribute"] < 1
    assert "twin                   100.0%" in told.text
    assert told.usage is vlm.usage


def test_data_of_ones_own_have_no_table_and_the_stage_says_why(ran: Ran) -> None:
    world = ran.world
    assert json.loads((world.paths.metrics / "in_context.json").read_text()) == {}
    told = in_context.run(cast(Any, world.settings("in_context")), world.paths)
    assert told.text.startswith("nothing to ask")
