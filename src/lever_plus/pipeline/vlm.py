"""The frozen VLM that params.yaml names, for every stage that asks it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lever_plus.config.params import Params
from lever_plus.data.examples import Example
from lever_plus.pipeline import paths
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.request import Backend
from lever_plus.vlm.scorer import by_id
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm


def open_vlm(params: Params, splits: Mapping[str, Sequence[Example]]) -> StoredVlm:
    """Name the VLM and open the answer store; weights are loaded when something must be asked."""
    # DVC runs experiments in temporary folders and exports the real root to them.
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    store = Store(root / params.scoring.store)
    return StoredVlm(_backend(params, by_id(splits), store), store)


def _backend(params: Params, examples: Mapping[int, Example], store: Store) -> Backend:
    vlm = params.vlm
    if vlm.kind == "openai":
        return OpenAiVlm(examples, vlm)
    path = vlm.path or str(paths.VLM)
    if params.scoring.executor == "ray":
        from lever_plus.vlm.backends.ray import RayVlm

        return RayVlm(path, examples, vlm, params.scoring.ray)
    return HuggingFaceVlm(path, examples, vlm, store, params.scoring.features_megabytes)
