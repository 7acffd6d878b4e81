"""A small project on disk whose every stage runs in about a second, before a formula.

Its settings are those of params.yaml with small changes, and two training seeds. The splits have
different series, so that what is chosen on the wrong one is another choice.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from lever_plus.config.base import Section
from lever_plus.config.file import changed_params, load_params
from lever_plus.config.params import Params
from lever_plus.config.settings import settings_of
from lever_plus.pipeline import (
    embed,
    evaluate,
    grpo,
    in_context,
    offline,
    pool,
    prepare,
    report,
    rl_data,
    sft,
    sft_data,
)
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.trainer import Row
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from pipeline.formula import HALF, RULES, SIGNS, SPLITS, Card, FormulaEncoder, FormulaVlm
from tiny_world import ROOT

SHARES: Final = {
    "train": (1, 1, 1, 1, 1, 1),
    "dev": (5, 4, 2, 1, 1, 1),
    "test": (1, 1, 1, 2, 4, 5),
}
"""How often each series occurs in a split."""
SIZES: Final = {"train": 96, "dev": 30, "test": 30}
STAGES: Final[Mapping[str, Any]] = {
    "prepare": prepare,
    "in_context": in_context,
    "embed": embed,
    "pool": pool,
    "sft_data": sft_data,
    "sft": sft,
    "rl_data": rl_data,
    "rce": offline,
    "grpo": grpo,
    "evaluate": evaluate,
    "report": report,
}
INSTRUCTIONS: Final = ("ember or fern", "basil or amber", "amber or basil")
"""The first is best on test; on dev the others are equally good."""
ASKING: Final = ("in_context", "sft_data", "sft", "rl_data", "rce", "grpo", "evaluate")
TRAINING: Final = ("sft", "rce", "grpo")
SEEDED: Final = ("sft", "rl_data", "rce", "grpo")


def split_files(split: str) -> dict[str, Any]:
    """Return what params.yaml says about the files of a split."""
    names = {"questions": f"questions_{split}.json", "annotations": f"annotations_{split}.json"}
    return {**names, "images": "images", "image_name": "card_{image_id:04d}.png", "sample": None}


CHANGES: Final[dict[str, Any]] = {
    "training_seeds": [1, 2],
    "threads": 1,
    "data": {
        "source": {
            "kind": "vqa_files",
            "root": "data",
            "answers_per_question": 10,
            "allow_fallback": False,
            **{split: split_files(split) for split in SPLITS},
        },
        "rl_queries": 72,
        "sft_queries": 48,
    },
    "pool": {"size": 12, "scarcity": 0.0},
    "vlm": {"path": "formula"},
    "embed": {"path": "formula", "variance": 0.98},
    "policy": {"hidden": 16},
    "pointer": {"shots": 2, "price": 0.3},
    "reward": {"shot_weights": [0.5, 0.5]},
    "sft_data": {"beam": 3},
    "sft": {"epochs": 3, "learning_rate": 5.0e-3, "batch_size": 12, "dropout": 0.1, "dev_every": 2},
    "rl_data": {"beam": 3, "samples": {"1.0": 3, "1.3": 2}, "random": 3},
    "rce": {
        **{"epochs": 3, "learning_rate": 5.0e-3, "batch_size": 12},
        "tau": {"rce": {"start": 0.4, "end": 0.1}, "rce-seed": {"start": 2.0, "end": 0.5}},
    },
    "agro": {"epochs": 4, "learning_rate": 1.0e-2, "batch_size": 12, "beta": 0.3},
    "grpo": {"rounds": 4, "epochs": 1, "group_size": 8, "learning_rate": 2.0e-2, "batch_size": 24},
    "stop": {
        **{"passes": 6, "rounds": 2, "epochs": 1, "batch_size": 12, "learning_rate": 5.0e-3},
        "prices": [0.0, 0.3, 3.0],
    },
    "evaluate": {
        **{"random_seeds": 2, "fixed_pointers": 6, "best_of": 4, "order_queries": 6},
        **{"oracle_queries": 10, "resamples": 100, "instructions": list(INSTRUCTIONS)},
    },
}
"""What differs from params.yaml."""


class KilledError(Exception):
    """Simulates that a training is ended from outside."""


@dataclass
class World:
    """A project on disk, its settings, and the formula before it.

    rows: {(stage, method, seed): what the tracked run was told}; killed_after: the epoch after
    which a training is ended; stored: whether answers are kept in the project's store.
    """

    paths: Paths
    params: Params
    backend: FormulaVlm = field(default_factory=FormulaVlm)
    rows: dict[tuple[str, str, int], list[Row]] = field(default_factory=dict)
    killed_after: int = -1
    stored: bool = False

    def workspace(self) -> Workspace:
        """Return what stages load, before a formula of its own."""
        vlm = StoredVlm(FormulaVlm(), None)
        return Workspace(self.paths, self.params.vlm, self.params.scoring, vlm)

    def changed(self, changes: Mapping[str, Any], moved: Mapping[str, Path], out: Path) -> "World":
        """Return the same project with other settings; some stages write elsewhere."""
        paths = replace(self.paths, moved=moved, metrics_in=out / "metrics")
        return World(paths, changed_params(self.params, changes))

    def settings(self, stage: str) -> Section:
        """Return the settings of a stage."""
        return settings_of(STAGES[stage].Settings, self.params)

    def run(self, stage: str, seed: int | None = None) -> list[Request]:
        """Run a stage, with every training seed unless one is given; return what it asked."""
        begin = len(self.backend.requests)
        given: dict[str, Any] = {}
        if stage in ASKING:
            store = Store(self.paths.cache / "answers.sqlite") if self.stored else None
            given["vlm"] = StoredVlm(self.backend, store)
        seeds = self.params.training_seeds if seed is None else [seed]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(embed, "ClipEncoder", FormulaEncoder)
            if stage not in SEEDED:
                STAGES[stage].run(self.settings(stage), self.paths, **given)
                return self.backend.requests[begin:]
            for number in seeds:
                if stage in TRAINING:
                    given |= {"track": self.track(stage, number)}
                STAGES[stage].run(self.settings(stage), self.paths, seed=number, **given)
        return self.backend.requests[begin:]

    def track(self, stage: str, seed: int) -> Callable[[str], Any]:
        """Return what opens the tracked runs of a stage."""

        @contextmanager
        def opened(method: str) -> Iterator[Callable[[Row], None]]:
            rows = self.rows[stage, method, seed] = []

            def observe(row: Row) -> None:
                rows.append(row)
                if row.get("epoch") == self.killed_after:
                    raise KilledError

            yield observe

        return opened


def make_world(root: Path) -> World:
    """Write the data files and params.yaml of the project; no stage has run."""
    _write_data(root / "data")
    params = changed_params(load_params(ROOT / "params.yaml"), CHANGES)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(params.model_dump(exclude_defaults=True), file)
    shutil.copy(ROOT / "dvc.yaml", root / "dvc.yaml")
    return World(Paths(root), params)


def _write_data(folder: Path) -> None:
    """Write files in VQAv2 format; the first images of train and test differ in one pixel."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(7)
    twin = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for place, (split, size) in enumerate(SIZES.items(), start=1):
        shares = np.array(SHARES[split]) / sum(SHARES[split])
        rows: dict[str, list[Any]] = {"questions": [], "annotations": []}
        for number in range(1000 * place, 1000 * place + size):
            series = int(rng.choice(len(SIGNS), p=shares))
            card = Card(number, series, str(rng.choice(RULES, p=(0.5, 0.3, 0.2))))
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            if split != "dev" and number % 1000 == 0:
                pixels = twin.copy()
                pixels[0, 0] = place
            Image.fromarray(pixels).save(folder / "images" / f"card_{number:04d}.png")
            ids = {"question_id": number, "image_id": number}
            answers = [{"answer": SIGNS[series]}] * 8 + [{"answer": HALF}] * 2
            rows["questions"].append({**ids, "question": card.question})
            rows["annotations"].append({**ids, "answers": answers})
        for key, entries in rows.items():
            (folder / f"{key}_{split}.json").write_text(json.dumps({key: entries}))


@dataclass(frozen=True)
class Ran:
    """A world all of whose stages have run, and what each asked the VLM. No test changes it."""

    world: World
    asked: dict[str, list[Request]]


def project_with(variants: dict[str, Any], ran: Ran, root: Path) -> World:
    """Copy the world, with a file of variants."""
    shutil.copytree(ran.world.paths.root, root)
    (root / "ablations").mkdir()
    with (root / "ablations" / "variants.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(variants, file)
    return World(Paths(root), ran.world.params)
