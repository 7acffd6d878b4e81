"""The results of a variant: its scores on the test questions, and facts about its training.

Nothing is chosen on the test questions.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lever_plus.config.names import GRPO_STOP
from lever_plus.config.params import Params
from lever_plus.config.policy import PointerParams
from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import evaluate_selector, evaluate_zero_shot
from lever_plus.evaluation.methods import ZERO_SHOT
from lever_plus.experiments.ablation.variants import FACTS, SCORES, VARIANTS, read_variants
from lever_plus.files.locks import locked
from lever_plus.files.writing import replacing, write_json
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.workspace import Workspace
from lever_plus.selectors.base import Selector
from lever_plus.selectors.baselines import SimilaritySelector

Checkpoints = Callable[[str, int], Path]
"""Returns the checkpoint folder of a method and a training seed."""


@contextmanager
def renewed(name: str, paths: Paths) -> Iterator[Path]:
    """Open a folder for a variant's results; at the end it replaces those of an earlier run.

    Args:
        name: Name of the variant.
        paths: Paths of the pipeline.

    Yields:
        An empty folder.

    Raises:
        UserError: Another process is running the same variant.
    """
    lock = paths.cache / "ablations" / f"{name}.lock"
    busy = f"another `lever-plus ablate` is running {name} here: wait until it has ended."
    with locked(lock, busy, "let this user write there"):
        fresh, out = working(name, paths) / "out", paths.variant(name)
        shutil.rmtree(fresh, ignore_errors=True)
        yield fresh
        # Only now, so that the earlier results stay until the new ones are complete.
        if out.is_dir():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, out)


def working(name: str, paths: Paths) -> Path:
    """Return the folder for a variant's temporary files."""
    return paths.cache / "ablations" / name


def seeds_of(base: Params, root: Path) -> list[int]:
    """Return the seeds of all variants.

    Raises:
        UserError: A seed is not a training seed of the pipeline.
    """
    seeds = read_variants(root).seeds
    other = [seed for seed in seeds if seed not in base.training_seeds]
    if other:
        raise UserError(
            f"{VARIANTS}: seeds: {other[0]} is not one of training_seeds in params.yaml "
            f"({', '.join(map(str, base.training_seeds))}), but a variant starts from what the "
            "pipeline trained with the same seed: add it there, or remove it here."
        )
    return seeds


class Place:
    """Where a variant's methods are scored: on the test questions, with one VLM and its pools."""

    def __init__(self, workspace: Workspace, pointer: PointerParams) -> None:
        """Keep VLM, pools and features, and the number of demonstrations and their price."""
        self._workspace, self._pointer = workspace, pointer
        self._questions = workspace.of_split("test")
        self._pools = workspace.pools_of(self._questions)

    def trained(
        self,
        methods: Sequence[str],
        seed: int,
        checkpoint: Checkpoints,
        *,
        allow_other_pool: bool = False,
    ) -> list[pd.DataFrame]:
        """Return the score tables of a training seed's policies, one per method.

        Args:
            methods: The trained methods.
            seed: Training seed.
            checkpoint: Returns the checkpoint of a method and a seed.
            allow_other_pool: Whether to use policies on other pools than they were trained on.

        Raises:
            UserError: A checkpoint can't be loaded, or its policy was trained on other pools or in
                another feature space.
        """
        tables = []
        for method in methods:
            price = self._pointer.price if method == GRPO_STOP else None
            place = checkpoint(method, seed)
            selector = self._workspace.selector(place, price, allow_other_pool=allow_other_pool)
            tables.append(self._scores(method, seed, selector))
        return tables

    def baselines(self, methods: Sequence[str]) -> list[pd.DataFrame]:
        """Return the score tables of untrained methods, computed as in the stage `evaluate`."""
        features, scorer = self._workspace.features, self._workspace.scorer
        return [
            evaluate_zero_shot(scorer, method, self._questions)
            if method == ZERO_SHOT
            else self._scores(method, 0, SimilaritySelector(features, method))
            for method in methods
        ]

    def _scores(self, method: str, seed: int, selector: Selector) -> pd.DataFrame:
        scorer, shots = self._workspace.scorer, self._pointer.shots
        return evaluate_selector(
            scorer, method, seed, selector, self._questions, self._pools, shots
        )


def write_results(folder: Path, scores: Sequence[pd.DataFrame], facts: dict[str, Any]) -> None:
    """Write the score table and the facts into a folder that `renewed` opened."""
    with replacing(folder / SCORES) as file:
        pd.concat(scores, ignore_index=True).to_parquet(file, index=False)
    write_json(folder / FACTS, facts)
