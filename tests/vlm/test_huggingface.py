"""The prefix engine gives the answers of the processor and `generate`, and nothing else."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lever_plus.config.params import Params
from lever_plus.config.vlm import PromptParams
from lever_plus.data.examples import Example, Query
from lever_plus.data.images import open_image
from lever_plus.errors import UserError
from lever_plus.hub.folder import folder_hash
from lever_plus.hub.linear import OneDnnLinear
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.engine.segments import Item, NotSeparableError
from lever_plus.vlm.prompt import prompt_hash, render
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Asked, Scorer
from lever_plus.vlm.store.cached import StoredVlm
from tiny_world import Folders, World

Load = Callable[..., HuggingFaceVlm]


@pytest.fixture(scope="module")
def load(folders: Folders, params: Params) -> Load:
    """Load the tiny VLM with other settings."""

    def load(path: Path = folders.vlm, **settings: object) -> HuggingFaceVlm:
        defaults = {"max_new_tokens": 3, "batch_tokens": 200}
        changed = params.vlm.model_copy(update={**defaults, **settings})
        assert changed.kind == "huggingface"
        return HuggingFaceVlm(str(path), changed)

    return load


@pytest.fixture(scope="module")
def vlm(load: Load) -> HuggingFaceVlm:
    return load()


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    """Requests of 0-4 demonstrations, with shared prefixes, in random order."""
    rng = np.random.default_rng(0)
    train = world.splits["train"]
    made = []
    for query in world.splits["test"]:
        pointer = tuple(train[i] for i in rng.choice(len(train), 4, replace=False))
        made += [Request(pointer[:shot], query.query, query.answer) for shot in range(5)]
    return [made[i] for i in rng.permutation(len(made))]


def test_answers_equal_those_of_generate_one_by_one(
    load: Load, vlm: HuggingFaceVlm, requests: list[Request]
) -> None:
    reference = load(prefix_reuse=False)
    alone = [reference.answer_alone(request) for request in requests]
    asked = [request._replace(answer=None) for request in requests]
    assert vlm.answers(asked) == alone
    assert vlm.answers(requests) == alone  # an answer that is not scored changes nothing
    assert len(set(alone)) > 1


def _on_onednn(vlm: HuggingFaceVlm) -> bool:
    return any(isinstance(module, OneDnnLinear) for module in vlm.model.modules())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_the_engine_runs_on_onednn_and_a_refused_one_leaves_nothing_behind(
    load: Load, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = load()
    used.load(requests)
    assert used.engine is not None
    assert _on_onednn(used)

    def refuse(*_: object) -> None:
        raise ValueError("its layers are others")

    monkeypatch.setattr("lever_plus.vlm.engine.trial.PrefixEngine", refuse)
    refused = load()
    with pytest.warns(UserWarning, match="its layers are others"):
        refused.load(requests)
    assert refused.engine is None
    assert not _on_onednn(refused)


@pytest.mark.parametrize("settings", [{"batch_tokens": 1}, {"prefix_reuse": False}], ids=str)
def test_answers_and_likelihoods_do_not_depend_on_batches(
    load: Load, vlm: HuggingFaceVlm, requests: list[Request], settings: dict[str, object]
) -> None:
    other = load(**settings)
    assert other.answers(requests) == vlm.answers(requests)
    np.testing.assert_allclose(
        other.log_likelihoods(requests), vlm.log_likelihoods(requests), atol=1e-4
    )


def test_segments_outside_the_memory_budget_are_made_again(
    load: Load, vlm: HuggingFaceVlm, requests: list[Request]
) -> None:
    small = load()
    small.load(requests)
    small.engine.segments._budget = 1
    for start in range(0, len(requests), 8):
        part = requests[start : start + 8]
        assert small.answers(part) == vlm.answers(part)
        shown = {Item(e.query, e.answer) for r in part for e in r.demonstrations}
        named = shown | {Item(r.query, r.answer) for r in part}
        assert set(small.engine.segments._made) == named


def test_an_example_that_cannot_be_cut_repeats_nothing(
    load: Load, vlm: HuggingFaceVlm, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is met half-way: the rest runs as whole prompts, and every answer is reported once."""
    small, reported = load(workers=1), list[int]()
    small.load(requests)
    generate = small.engine.generate

    def fails_later(chunk: Sequence[Request], tokens: int) -> list[list[int]]:
        if len(reported) >= 10:
            raise NotSeparableError("the answer 'x' merges with the prompt before it")
        return generate(chunk, tokens)

    monkeypatch.setattr(small.engine, "generate", fails_later)
    with pytest.warns(
        UserWarning,
        match=r"whole, without prefix reuse \(slower, same answers\), because the answer 'x'",
    ):
        answers = small.answers(requests, lambda indices, _: reported.extend(indices))
    assert answers == vlm.answers(requests)
    assert sorted(reported) == list(range(len(requests)))


def test_out_of_memory_halves_the_batch_and_goes_on(
    load: Load, vlm: HuggingFaceVlm, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load(batch_tokens=10_000)
    small.load(requests)
    generate, sizes = small.engine.generate, []

    def limited(chunk: Sequence[Request], tokens: int) -> list[list[int]]:
        sizes.append(len(chunk))
        if len(chunk) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(chunk, tokens)

    monkeypatch.setattr(small.engine, "generate", limited)
    with pytest.warns(UserWarning, match="out of memory: continuing with batches of"):
        assert small.answers(requests) == vlm.answers(requests)
    assert max(sizes) == len(requests)
    before = len(sizes)
    small.answers(requests)
    assert max(sizes[before:]) < sizes[0]  # what was learned is kept


def test_one_prompt_that_does_not_fit_is_an_error(
    load: Load, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_chunk: object, _tokens: int) -> list[list[int]]:
        raise MemoryError

    small = load()
    small.load(requests)
    monkeypatch.setattr(small.engine, "generate", never)
    with (
        pytest.raises(UserError, match=r"one prompt of about .* does not fit"),
        pytest.warns(UserWarning, match="out of memory"),
    ):
        small.answers(requests)


def test_an_error_that_is_no_lack_of_memory_is_not_swallowed(
    load: Load, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_chunk: object, _tokens: int) -> list[list[int]]:
        raise RuntimeError("shapes do not match")

    small = load()
    small.load(requests)
    monkeypatch.setattr(small.engine, "generate", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        small.answers(requests)


def answered(request: Request) -> Example:
    """The query with the answer that is scored, as an example."""
    assert request.answer is not None
    return Example(request.query.image, request.query.question, request.answer)


def whole_prompt_likelihood(vlm: HuggingFaceVlm, request: Request) -> float:
    """The answer's mean log-probability from one plain forward pass over the whole prompt."""
    examples = [*request.demonstrations, answered(request)]
    text = render(vlm.processor, examples, None)
    images = [open_image(e.image) for e in examples]
    inputs = vlm.processor(
        text=[text], images=images, add_special_tokens=False, return_tensors="pt"
    )
    with torch.no_grad():
        log_probs = vlm.model(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    answer = vlm.processor.tokenizer(examples[-1].answer, add_special_tokens=False)["input_ids"]
    last = len(ids) - 1  # the end-of-turn token
    places = range(last - len(answer), last)
    assert [int(ids[i]) for i in places] == answer
    return float(np.mean([float(log_probs[i - 1, ids[i]]) for i in places]))


def test_likelihoods_equal_those_of_the_whole_prompt(
    vlm: HuggingFaceVlm, requests: list[Request]
) -> None:
    expected = [whole_prompt_likelihood(vlm, request) for request in requests[:20]]
    np.testing.assert_allclose(vlm.log_likelihoods(requests[:20]), expected, atol=1e-4)


def test_answers_of_several_tokens_are_scored_on_all_of_them(load: Load, world: World) -> None:
    """A wrong answer mask would be noticed here: 'red blue' is two tokens."""
    source = world.splits["test"][0]
    vlm = load()
    shown = (world.splits["train"][0],)
    requests = [Request((), source.query, "red blue"), Request(shown, source.query, "red blue")]
    requests.append(Request((), source.query, source.answer))
    expected = [whole_prompt_likelihood(vlm, request) for request in requests]
    np.testing.assert_allclose(vlm.log_likelihoods(requests), expected, atol=1e-4)


def test_the_order_of_demonstrations_matters(vlm: HuggingFaceVlm, world: World) -> None:
    first, second = world.splits["train"][:2]
    query = world.splits["test"][0]
    one, other = vlm.log_likelihoods(
        [Request(shown, query.query, query.answer) for shown in ((first, second), (second, first))]
    )
    assert not math.isclose(one, other, abs_tol=1e-7)


def test_the_prompt_holds_real_turns_in_order(vlm: HuggingFaceVlm, world: World) -> None:
    first, second, query = world.splits["train"][:3]
    text = render(vlm.processor, [first, second], query)
    places = [text.index(e.question) for e in (first, second, query)]
    assert places == sorted(places)
    assert text.count("<image>") == 3
    assert text.endswith("<assistant>")
    assert f" {first.answer}</s>" in text
    assert f" {query.answer}</s>" not in text[places[2] :]


def test_the_prompt_hash_changes_with_the_template(vlm: HuggingFaceVlm) -> None:
    before, template = prompt_hash(vlm.processor), vlm.processor.chat_template
    try:
        vlm.processor.chat_template = template.replace(
            "{{ part['text'] }}", "Q: {{ part['text'] }}"
        )
        assert prompt_hash(vlm.processor) != before
    finally:
        vlm.processor.chat_template = template
    assert prompt_hash(vlm.processor) == before == vlm.identity["prompt_hash"]


def test_the_revision_changes_with_the_weights(folders: Folders, tmp_path: Path) -> None:
    for path in folders.vlm.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert folder_hash(tmp_path) == folder_hash(folders.vlm)
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert folder_hash(tmp_path) != folder_hash(folders.vlm)


def test_an_unreadable_image_is_named(
    load: Load, vlm: HuggingFaceVlm, world: World, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    source = world.splits["test"][0]
    damaged = Query(str(broken), source.question)
    fresh = load()
    with pytest.raises(UserError, match=r"broken.png cannot be read"):
        fresh.answers([Request((), damaged)])
    with pytest.raises(UserError, match=r"broken.png cannot be read"):
        vlm.answers([Request((), source.query), Request((), damaged)])


def test_a_folder_without_model_is_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model"):
        load(tmp_path)


def test_weights_that_are_missing_are_never_random(
    load: Load, folders: Folders, requests: list[Request], tmp_path: Path
) -> None:
    """The reference system continued with 23 of 23 tensors missing."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folders.vlm, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[next(name for name in weights if "q_proj" in name)]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing keys .*would be random"):
        load(tmp_path).answers(requests)


def test_the_scorer_asks_each_distinct_request_once(
    vlm: HuggingFaceVlm, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = vlm.answers, []

    def counted(requests: Sequence[Request], *rest: object) -> list[str]:
        asked.extend(requests)
        return answers(requests, *rest)

    monkeypatch.setattr(vlm, "answers", counted)
    query = world.splits["test"][0]
    a, b, c = world.splits["train"][:3]
    Scorer(StoredVlm(vlm, None)).score_pointers([query] * 3, [(a, b), (a, c), (a, b)])
    # Shot 1 is shared by all three pointers; order matters.
    assert len(asked) == 3
    assert set(asked) == {Request(p, query.query) for p in ((a,), (a, b), (a, c))}


def test_scores_are_the_official_metric(vlm: HuggingFaceVlm, world: World) -> None:
    source = world.splits["test"][0]
    answer = vlm.answers([Request((), source.query)])[0]
    humans = (answer,) * 2 + ("something else",) * 8
    judged = replace(source, answer="something else", answers=humans)
    (score,) = Scorer(StoredVlm(vlm, None)).score([Asked((), judged)])
    assert (score.answer, score.vqa_correct) == (answer, 1)
    assert score.vqa_acc_score == pytest.approx(0.6)


@pytest.mark.parametrize("prefix_reuse", [True, False])
@pytest.mark.parametrize("shown", [0, 1])
def test_an_image_that_was_changed_since_it_was_hashed_is_not_shown(
    prefix_reuse: bool, shown: int, load: Load, world: World, tmp_path: Path
) -> None:
    """Its answers would be stored as those of the earlier image."""
    first, second = world.splits["train"][:2]
    path = Path(shutil.copy(second.image, tmp_path / "image.png"))
    moved = replace(first, image=str(path))  # the hash is that of another image
    request = Request((moved,), second.query) if shown else Request((), moved.query)
    with pytest.raises(UserError, match=f"image {path} was changed after"):
        load(prefix_reuse=prefix_reuse).answers([request])


def test_another_instruction_is_asked_with_the_same_weights(
    load: Load, vlm: HuggingFaceVlm, requests: list[Request]
) -> None:
    text = "Answer in English."
    opened = load(prompt=PromptParams(style="chat", instruction=text))
    few = [request for request in requests if not request.demonstrations]
    before = vlm.answers(few)
    changed = vlm.instructed(text)
    assert changed.identity == opened.identity != vlm.identity
    assert changed.answers(few) == opened.answers(few) != before
    assert changed.model is vlm.model
    assert changed.usage is vlm.usage
    assert vlm.answers(few) == before
    with pytest.raises(UserError, match=r"evaluate\.instructions"):
        vlm.instructed("answer </s>")


def test_no_weights_are_loaded_to_name_instructions(load: Load) -> None:
    """They are not needed if all answers are stored."""
    first = load()
    second = first.instructed("Briefly.")
    assert "model" not in vars(second._weights)
    assert second.model is first.model
