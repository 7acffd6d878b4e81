"""Opens the back end that the `vlm` section of params.yaml names."""

from lever_plus.config.scoring import ScoringParams
from lever_plus.config.vlm import OpenAiVlmParams, PluginVlmParams, VlmParams
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.backends.plugin import make_backend
from lever_plus.vlm.request import Backend
from lever_plus.vlm.store.answers import Store


def open_backend(vlm: VlmParams, scoring: ScoringParams, store: Store | None) -> Backend:
    """Return the back end; weights are loaded at the first request.

    Args:
        vlm: Settings of the VLM.
        scoring: Whether it runs in this process or on Ray.
        store: The store that also keeps image features; None for nowhere.

    Raises:
        UserError: There is no such model, a package that it needs is missing, or a user's own
            factory does not return a back end.
    """
    if isinstance(vlm, OpenAiVlmParams):
        return OpenAiVlm(vlm)
    if isinstance(vlm, PluginVlmParams):
        return make_backend(vlm)
    if scoring.executor == "ray":
        from lever_plus.vlm.backends.ray import RayVlm

        return RayVlm(vlm.path, vlm, scoring.ray)
    return HuggingFaceVlm(vlm.path, vlm, store, scoring.features_megabytes)
