"""The frozen VLM that params.yaml names, for every stage that asks it."""

from collections.abc import Mapping, Sequence

from lever_plus.data.examples import Example
from lever_plus.params_sources import VlmParams
from lever_plus.stages import paths
from lever_plus.vlm.huggingface import HuggingFaceVlm
from lever_plus.vlm.request import Vlm
from lever_plus.vlm.scorer import by_id
from lever_plus.vlm.server import OpenAiVlm


def open_vlm(params: VlmParams, splits: Mapping[str, Sequence[Example]]) -> Vlm:
    """Load the model (a server is only named), for the examples of all splits."""
    if params.kind == "openai":
        return OpenAiVlm(by_id(splits), params)
    return HuggingFaceVlm(params.path or str(paths.VLM), by_id(splits), params)
