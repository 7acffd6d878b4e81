"""Prompt tokens are counted by parts, which must add up; if they do not, no length is given."""

import pytest

from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams, PromptParams
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.lengths import Lengths
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.cached import StoredVlm
from pipeline.formula import FormulaVlm
from tiny_world import Folders, World


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    pool, test = world.splits["train"][:5], world.splits["test"][:3]
    return [Request(tuple(pool[:n]), example.query) for n in (0, 1, 2, 4) for example in test]


@pytest.mark.parametrize("style", ["chat", "flat"])
def test_no_model_is_loaded_to_count(
    folders: Folders, params: Params, requests: list[Request], style: str
) -> None:
    prompt = PromptParams.model_validate({"style": style, "instruction": "Answer in one word."})
    settings = params.vlm.model_copy(update={"prompt": prompt})
    assert isinstance(settings, HuggingFaceVlmParams)
    vlm = HuggingFaceVlm(str(folders.vlm), settings)
    counted = StoredVlm(vlm, None).prompt_tokens(requests)
    assert "model" not in vars(vlm)
    assert counted == [vlm.plain.inputs([r])["input_ids"].shape[1] for r in requests]


def test_prompts_that_are_not_the_sum_of_their_parts_have_no_length(
    folders: Folders, params: Params, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, if a processor makes images smaller when there are several."""
    assert isinstance(params.vlm, HuggingFaceVlmParams)
    vlm = HuggingFaceVlm(str(folders.vlm), params.vlm)
    whole = Lengths._whole
    monkeypatch.setattr(Lengths, "_whole", lambda s, r: whole(s, r) - (len(r.demonstrations) > 1))
    lengths = Lengths(vlm.processor, vlm.prompt)
    assert lengths.of(requests[:6]) is not None
    assert lengths.of(requests) is None
    assert lengths.of(requests[:6]) is not None


def test_who_has_no_processor_says_nothing(requests: list[Request]) -> None:
    assert StoredVlm(FormulaVlm(), None).prompt_tokens(requests) is None
