"""The frozen VLM that params.yaml names, for every stage that asks it."""

import os
from pathlib import Path

from lever_plus.config.scoring import ScoringParams
from lever_plus.config.vlm import VlmParams
from lever_plus.pipeline.paths import Paths
from lever_plus.vlm.backends.open import open_backend
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm


def open_vlm(vlm: VlmParams, scoring: ScoringParams, paths: Paths) -> StoredVlm:
    """Name the VLM and open the answer store; weights are loaded when something must be asked."""
    # DVC runs experiments in temporary folders and exports the real root to them.
    root = Path(os.environ.get("DVC_ROOT") or paths.root)
    store = Store(root / scoring.store)
    return StoredVlm(open_backend(vlm, scoring, paths.vlm, store), store)
