"""Opens the frozen VLM that params.yaml names, for every stage that uses it."""

from lever_plus.config.scoring import ScoringParams
from lever_plus.config.vlm import HuggingFaceVlmParams, VlmParams
from lever_plus.files.names import SHIPPED
from lever_plus.files.reading import found_in, own_root
from lever_plus.pipeline.paths import Paths
from lever_plus.vlm.backends.open import open_backend
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm


def open_vlm(vlm: VlmParams, scoring: ScoringParams, paths: Paths) -> StoredVlm:
    """Return the VLM with its answer store; weights are loaded when the store lacks an answer."""
    # A DVC experiment in a temporary folder uses the answers that the project already has.
    store = Store((own_root() or paths.root) / scoring.store)
    if isinstance(vlm, HuggingFaceVlmParams):
        vlm = vlm.model_copy(update={"path": found_model(vlm.path, paths)})
    return StoredVlm(open_backend(vlm, scoring, store), store)


def found_model(path: str, paths: Paths) -> str:
    """Return the path of a model's folder; hub ids and names of shipped models are not changed."""
    if path.startswith(SHIPPED):
        return path
    folder = found_in(paths.root, path)
    return str(folder) if folder.exists() else path
