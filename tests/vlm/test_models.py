"""Each VLM family gives the same results in batches, with shared prefixes and one by one."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lever_plus.cli.doctor import examine
from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams, PromptParams
from lever_plus.data.examples import Example
from lever_plus.data.images import open_image
from lever_plus.hub.processing import process
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.prompt import render
from lever_plus.vlm.request import Request, scored_answer
from lever_plus.vlm.store.cached import StoredVlm
from lever_plus.vlm.turns import turn
from tiny_world import World
from vlm.model_zoo import CHOICES, FAMILIES, IN_COMPANY, WHOLE, Family, save


@pytest.fixture(scope="module", params=CHOICES.values())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(family, tmp_path_factory.mktemp("vlm"))


def load(
    folder: Path, params: Params, requests: list[Request], **settings: object
) -> HuggingFaceVlm:
    defaults = {"max_new_tokens": 3, "batch_tokens": 600}
    changed = params.vlm.model_copy(update={**defaults, **settings})
    assert isinstance(changed, HuggingFaceVlmParams)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*without prefix reuse")
        vlm = HuggingFaceVlm(str(folder), changed)
        vlm.load(requests)
        return vlm


@pytest.fixture(scope="module")
def vlm(folder: Path, params: Params, requests: list[Request]) -> HuggingFaceVlm:
    return load(folder, params, requests)


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    """Requests of 0-4 demonstrations, some with shared prefixes."""
    a, b, c, d = world.splits["train"][:4]
    first, second = world.splits["test"][:2]
    asked = [
        *(((a, b, c, d)[:shot], first) for shot in range(5)),
        ((b, a), first),
        ((a, b), second),
    ]
    return [Request(shown, query.query, query.answer) for shown, query in asked]


def test_answers_in_batches_equal_those_one_by_one(
    vlm: HuggingFaceVlm, requests: list[Request]
) -> None:
    asked = [request._replace(answer=None) for request in requests]
    alone = [vlm.answer_alone(request) for request in asked]
    assert vlm.answers(asked) == alone
    assert len(set(alone)) > 1


def test_beams_in_batches_equal_those_one_by_one(
    folder: Path, params: Params, requests: list[Request]
) -> None:
    beams = load(folder, params, requests, num_beams=2)
    assert beams.answers(requests[:4]) == [beams.answer_alone(r) for r in requests[:4]]


@pytest.mark.parametrize("style", ["chat", pytest.param("flat", marks=pytest.mark.long)])
def test_likelihoods_in_batches_equal_those_of_the_whole_text(
    folder: Path, params: Params, requests: list[Request], style: str
) -> None:
    """The answer's tokens are found in the processor's own output of prompt and answer."""
    check_likelihoods(folder, params, requests, style)


def test_likelihoods_after_flat_prompts_equal_those_of_the_whole_text(
    params: Params, requests: list[Request], tmp_path: Path
) -> None:
    """Of one family; `make test-long` looks at all."""
    check_likelihoods(save(FAMILIES["LLaVA"], tmp_path), params, requests, "flat")


def check_likelihoods(folder: Path, params: Params, requests: list[Request], style: str) -> None:
    prompt = PromptParams.model_validate({"style": style, "instruction": "Answer in one word."})
    vlm = load(folder, params, requests, prompt=prompt)
    expected = [whole_text_likelihood(vlm, request) for request in requests]
    np.testing.assert_allclose(vlm.log_likelihoods(requests), expected, atol=2e-4)


def whole_text_likelihood(vlm: HuggingFaceVlm, request: Request) -> float:
    """Score the answer in a forward pass over the prompt's and the answer's ids, one request."""
    query = request.query
    answered = Example(query.image, query.question, scored_answer(request))
    examples = [*request.demonstrations, answered]
    prompt = vlm.plain.inputs([request])
    cut = turn(vlm.processor, examples[-1], vlm.prompt)
    # Exactly the answer: no end-of-turn mark, no space that the answer has not.
    assert vlm.processor.tokenizer.decode(cut.answer).strip() == examples[-1].answer
    if cut.follows:
        images = [open_image(example.image) for example in examples]
        text = render(vlm.processor, examples, None, vlm.prompt)
        whole = process(vlm.processor, [text], [images], "left")["input_ids"][0].tolist()
        ids = [*prompt["input_ids"][0].tolist(), *cut.answer]
        assert whole[: len(ids)] == ids
    ids = torch.tensor([cut.answer])
    extra = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs = {
        name: torch.cat([value, extra.get(name, torch.zeros_like(ids)).to(value.dtype)], dim=1)
        if value.shape == prompt["input_ids"].shape
        else value
        for name, value in prompt.items()
    }
    with torch.no_grad():
        log_probs = vlm.model(**inputs).logits[0].log_softmax(-1)
    start = prompt["input_ids"].shape[1] - 1
    return float(np.mean([log_probs[start + t, i].item() for t, i in enumerate(cut.answer)]))


def test_prefixes_are_shared_or_the_reason_is_known(vlm: HuggingFaceVlm, name: str) -> None:
    assert (vlm.engine is None) == (name in WHOLE), vlm.why_plain
    assert WHOLE.get(name, "") in vlm.why_plain


def test_the_doctor_asks_for_torchvision_where_it_is_needed(
    folder: Path, family: Family, params: Params
) -> None:
    vlm = params.vlm.model_copy(update={"path": str(folder)})
    items = examine(params.model_copy(update={"vlm": vlm}))
    assert ("torchvision" in {item.name for item in items}) == family.torchvision
    assert all(item.found for item in items if item.name in ("VLM", "torchvision"))


def test_demonstrations_are_turns_in_order(vlm: HuggingFaceVlm, world: World) -> None:
    first, second, query = world.splits["train"][:3]
    text = render(vlm.processor, [first, second], query)
    places = [text.index(e.question) for e in (first, second, query)]
    assert places == sorted(places)
    assert text.count(first.answer) >= 1
    assert not text.rstrip().endswith(query.answer)


def test_prompts_are_counted_as_the_processor_makes_them(
    vlm: HuggingFaceVlm, name: str, requests: list[Request], world: World, tmp_path: Path
) -> None:
    """The count includes image tokens, for images of any size; otherwise it is unknown."""
    shown, counted = [], StoredVlm(vlm, None)
    for number, size in enumerate([(90, 40), (40, 90), (64, 64), (90, 40)]):
        example = world.splits["train"][number]
        path = tmp_path / f"{number}.png"
        open_image(example.image).resize(size).save(path)
        shown.append(replace(example, image=str(path), image_sha256=""))
    sized = [Request(tuple(shown[:count]), shown[-1].query) for count in range(4)]
    for asked in (requests, sized):
        whole = [vlm.plain.inputs([request])["input_ids"].shape[1] for request in asked]
        assert counted.prompt_tokens(asked) == (None if name in IN_COMPANY else whole)
