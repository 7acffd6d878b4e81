"""Transfers: policies that a variant trained, used with another VLM or other pools."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from lever_plus.config.file import load_params
from lever_plus.config.params import Params
from lever_plus.config.settings import settings_of
from lever_plus.errors import UserError
from lever_plus.experiments.ablation.results import (
    Place,
    renewed,
    seeds_of,
    working,
    write_results,
)
from lever_plus.experiments.ablation.variants import (
    POOL,
    VARIANTS,
    Transfer,
    changed_by,
    find_transfer,
    find_variant,
    params_of,
)
from lever_plus.pipeline import pool
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.workspace import Workspace
from lever_plus.vlm.store.cached import StoredVlm

PLACE: Final = ("vlm", POOL)
"""Sections of params.yaml that say where policies are used."""


def run(name: str, paths: Paths, vlm: StoredVlm | None = None) -> Outcome:
    """Use the policies of a variant elsewhere, with every seed of `ablations/variants.yaml`.

    Pools are drawn again if the transfer changes how. The policies get queries that they have not
    seen, as always, so it does not matter what they saw in training.

    Args:
        name: Name of the transfer.
        paths: Paths of the pipeline.
        vlm: The VLM, if it is already open.

    Raises:
        UserError: The transfer is not valid, the policies are missing or of another feature space,
            or another process is running the same transfer.
    """
    root, transfer = paths.root, find_transfer(name, paths.root)
    base = load_params(root / "params.yaml")
    params, seeds = place_of(transfer, base, root), seeds_of(base, root)
    trained_with = params_of(find_variant(transfer.policies, root), root)
    with renewed(name, paths) as fresh:
        work, moved = working(name, paths) / POOL, paths
        if params.pool != base.pool:
            shutil.rmtree(work, ignore_errors=True)  # leftovers of a killed run
            moved = replace(paths, moved={POOL: work})
            pool.run(settings_of(pool.Settings, params), moved)
        workspace = Workspace(moved, params.vlm, params.scoring, vlm)
        place = Place(workspace, params.pointer)
        scores = place.baselines(transfer.baselines)
        for seed in seeds:
            scores += place.trained(
                transfer.trained,
                seed,
                partial(paths.variant, transfer.policies),
                allow_other_pool=params.pool != trained_with.pool,
            )
        write_results(fresh, scores, {"stages": [POOL] if moved is not paths else []})
        shutil.rmtree(work, ignore_errors=True)
    out = paths.variant(name)
    return Outcome(f"{name}: policies of {transfer.policies}, {len(seeds)} seeds in {out}")


def place_of(transfer: Transfer, base: Params, root: Path) -> Params:
    """Return params.yaml with a transfer's changes, which say where it uses policies.

    Raises:
        UserError: The changes are not valid together, or change how policies are trained.
    """
    params = changed_by(transfer, root)
    before, after = base.model_dump(), params.model_dump()
    other = [key for key, value in after.items() if key not in PLACE and value != before[key]]
    if other:
        raise UserError(
            f"{VARIANTS}: a transfer that asks {transfer.asks!r} changes {other[0]}, but a "
            f"transfer trains nothing: change only {' or '.join(PLACE)}, or make it a variant."
        )
    return params
