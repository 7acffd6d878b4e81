"""The prefix engine on layers of every kind, and what the trial before its use notices."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Gemma3ForConditionalGeneration
from transformers.cache_utils import LinearAttentionLayer

from lever_plus.config.params import Params
from lever_plus.hub.precision import in_float32
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.engine import capture, choice, language
from lever_plus.vlm.engine.caches import Prefixes, SharedLayer, joined, moved_right
from lever_plus.vlm.engine.features import Features, features_of, padded
from lever_plus.vlm.engine.language import LanguageModel
from lever_plus.vlm.engine.prefix import PrefixEngine
from lever_plus.vlm.request import Request
from tiny_world import Folders, World
from vlm.model_zoo import gemma3

WINDOW = 24
Load = Callable[..., HuggingFaceVlm]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Gemma 3 whose sliding window is shorter than two turns."""
    model, processor = gemma3()
    text = model.config.text_config
    text.sliding_window, text.num_hidden_layers = WINDOW, 3
    text.layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
    torch.manual_seed(0)
    windowed = Gemma3ForConditionalGeneration(model.config)
    windowed.generation_config = model.generation_config
    folder = tmp_path_factory.mktemp("gemma")
    windowed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def load(folders: Folders, params: Params, requests: list[Request]) -> Load:
    """Load a VLM, by default the tiny one, and try the engine on it."""

    def load(
        path: Path = folders.vlm, generation: dict[str, Any] | None = None, **settings: object
    ) -> HuggingFaceVlm:
        defaults = {"max_new_tokens": 3, "batch_tokens": 400}
        vlm = HuggingFaceVlm(str(path), params.vlm.model_copy(update={**defaults, **settings}))
        vlm.model.generation_config.update(**(generation or {}))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*without prefix reuse")
            vlm.load(requests)
        return vlm

    return load


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    """Requests of 0-4 demonstrations; turns differ in length, and prefixes are shared."""
    a, b, c, d = world.splits["train"][:4]
    shown = [(), (a,), (a, b), (b, a), (a, b, c), (c, b), (a, b, c, d)]
    asked = world.splits["test"][:2]
    return [Request(pointer, query.query, query.answer) for pointer in shown for query in asked]


def check(vlm: HuggingFaceVlm, requests: list[Request]) -> None:
    """Compare with whole prompts, one by one."""
    assert vlm.engine is not None, vlm.why_plain
    alone = [vlm.plain.log_likelihoods([request])[0] for request in requests]
    np.testing.assert_allclose(vlm.log_likelihoods(requests), alone, atol=1e-4)
    answers = [vlm.answer_alone(request) for request in requests]
    assert vlm.answers(requests) == answers
    assert len(set(answers)) > 1


def test_prompts_longer_than_a_window_equal_whole_prompts(
    gemma: Path, load: Load, requests: list[Request]
) -> None:
    vlm = load(gemma)
    assert vlm.plain.inputs(requests[-1:])["input_ids"].shape[1] > 2 * WINDOW
    assert vlm.engine is not None, vlm.why_plain
    assert vlm.engine.language.window == WINDOW
    check(vlm, requests[1::2])


def test_the_trial_sees_padding_within_a_window(
    gemma: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "moved_right", lambda prefixes, _by: prefixes)
    refused = load(gemma)
    assert refused.engine is None
    assert "differ by" in refused.why_plain


def test_a_window_that_nothing_reaches_is_refused(
    gemma: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lever_plus.vlm.engine.trial.LONGEST", 2 * WINDOW)
    assert load(gemma).why_plain == f"its window of {WINDOW} tokens is longer than can be tried"


def test_the_trial_of_a_bfloat16_model_sees_what_bfloat16_hides(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is far smaller than the steps of bfloat16; the weights stay as they are."""
    right = load(dtype="bfloat16")
    assert right.engine is not None, right.why_plain
    assert right.engine.segments.head.embeds.dtype == right.model.dtype == torch.bfloat16
    fresh = load(dtype="bfloat16", prefix_reuse=False).model.state_dict()
    assert all(value.equal(fresh[name]) for name, value in right.model.state_dict().items())
    run = LanguageModel.run

    def slightly_off(self: LanguageModel, *given: Any) -> tuple[torch.Tensor, Prefixes]:
        logits, prefixes = run(self, *given)
        return 1.002 * logits, prefixes

    monkeypatch.setattr(LanguageModel, "run", slightly_off)
    wrong = load(dtype="bfloat16")
    assert wrong.engine is None
    assert "differ by" in wrong.why_plain


def test_a_model_computes_in_float32_for_a_while() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).bfloat16()
    model.register_buffer("frequencies", torch.tensor([1 / 3]))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run_out() -> None:
        with in_float32(model):
            assert model(torch.ones(2, 3)).dtype == torch.float32
            raise MemoryError

    with pytest.raises(MemoryError):
        run_out()
    after = model.state_dict()
    assert {name: value.dtype for name, value in after.items()} == {
        name: value.dtype for name, value in before.items()
    }
    weights = [name for name in before if "running" not in name and "num_" not in name]
    assert all(after[name].equal(before[name]) for name in weights)


@pytest.mark.parametrize("error", [KeyError("layer 3"), torch.OutOfMemoryError("out of memory")])
def test_whatever_the_trial_raises_refuses_the_engine(
    load: Load, requests: list[Request], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Its hooks are gone afterwards."""

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(PrefixEngine, "generate", broken)
    refused = load()
    assert refused.engine is None
    assert str(error.args[0]) in refused.why_plain
    assert not refused.model.get_decoder()._forward_pre_hooks
    assert not refused.model.get_output_embeddings()._forward_pre_hooks
    assert len(refused.answers(requests[:2])) == 2


def test_a_checkpoint_that_penalises_repetition_answers_as_the_library_does(
    load: Load, requests: list[Request]
) -> None:
    """Words of the demonstrations count as said before; Qwen2.5-VL sets a penalty of 1.05."""
    plain, penalised = load(), load(generation={"repetition_penalty": 1.8})
    check(penalised, requests)
    assert penalised.answers(requests) != plain.answers(requests)


def test_a_checkpoint_that_asks_for_more_is_refused(load: Load) -> None:
    refused = load(generation={"no_repeat_ngram_size": 2})
    assert refused.why_plain == "its generation_config.json asks for no_repeat_ngram_size"
    assert set(choice.OTHER) <= set(vars(refused.model.generation_config)) | {"min_new_tokens"}


def test_nothing_is_computed_that_nobody_reads(load: Load, requests: list[Request]) -> None:
    """The last layer makes keys and values of a prefix, and ends at what predicts the answer."""
    vlm, seen = load(workers=1), list[torch.Size]()
    last = vlm.model.get_decoder().layers[-1].mlp
    last.register_forward_hook(lambda _module, given, _output: seen.append(given[0].shape[:2]))
    vlm.log_likelihoods([request._replace(answer="red") for request in requests])
    assert {length for _, length in seen} == {1}
    assert sum(rows for rows, _ in seen) == len(requests)


def test_a_model_whose_own_calls_go_on_is_left_alone(load: Load, requests: list[Request]) -> None:
    """Hooks of the engine change nothing for whole prompts."""
    used, never = load(), load(prefix_reuse=False)
    few = requests[:6]
    assert [used.answer_alone(r) for r in few] == [never.answer_alone(r) for r in few]


def test_answers_that_begin_otherwise_where_they_are_shown_are_shared(
    folders: Folders, load: Load, requests: list[Request], tmp_path: Path
) -> None:
    """Qwen3.5 puts an empty thought before what it is asked for, and none into the history."""
    shutil.copytree(folders.vlm, tmp_path, dirs_exist_ok=True)
    processor = AutoProcessor.from_pretrained(tmp_path)
    processor.chat_template += "{% if add_generation_prompt %} red red{% endif %}"
    processor.save_pretrained(tmp_path)
    words = [request._replace(answer="red blue red") for request in requests[1::2]]
    check(load(tmp_path), [*requests[::2], *words])


@pytest.mark.parametrize("given", [torch.ones(7), {3: torch.ones(7, 2)}], ids=["tensor", "mapping"])
def test_what_belongs_to_no_token_is_refused_by_its_name(
    load: Load, monkeypatch: pytest.MonkeyPatch, given: object
) -> None:
    """Granite Vision gives its language model features for layers, which a cut would lose."""
    inner = type(load(prefix_reuse=False).model.get_decoder())
    call = torch.nn.Module.__call__

    def with_more(self: torch.nn.Module, *args: Any, **options: Any) -> Any:
        more = {"features": given} if type(self) is inner else {}
        return call(self, *args, **options, **more)

    monkeypatch.setattr(inner, "__call__", with_more)
    refused = load()
    assert refused.why_plain == (
        "its language model gets features, which does not belong to single tokens"
    )


def attended(rows: list[list[int]]) -> SharedLayer:
    """A layer whose keys (and values, negative) are numbers."""
    layer, keys = SharedLayer(), torch.tensor(rows, dtype=torch.float32)[:, None, :, None]
    layer.update(keys, -keys)
    return layer


def state(*rows: float) -> LinearAttentionLayer:
    layer = LinearAttentionLayer()
    layer.update_conv_state(torch.tensor(rows)[:, None, None].expand(-1, 1, 2))
    return layer


def prefixes(rows: list[list[int]], layers: list[Any]) -> Prefixes:
    ids = torch.tensor(rows)
    lengths = (ids > 0).sum(-1)
    return Prefixes(layers, ids, ids > 0, lengths, lengths, {"kind": ids})


def test_rows_move_right_by_their_padding() -> None:
    rows = [[1, 2, 3, 0], [4, 0, 0, 0], [0, 5, 6, 7]]
    moved = moved_right(prefixes(rows, [attended(rows)]), torch.tensor([1, 3, 0]))
    expected = [[0, 1, 2, 3], [0, 0, 0, 4], [0, 5, 6, 7]]
    assert moved.ids.tolist() == moved.types["kind"].tolist() == expected
    assert moved.mask.tolist() == [[bool(i) for i in row] for row in expected]
    keys, values = moved.layers[0].kept
    for row, wanted, mask in zip(keys[:, 0, :, 0], expected, moved.mask, strict=True):
        assert row[mask].tolist() == [i for i in wanted if i]
    assert values.equal(-keys)


def test_parts_are_joined_with_padding_on_the_left() -> None:
    short, long = [[1, 2]], [[3, 4, 5], [0, 6, 7]]
    parts = [
        prefixes(short, [attended(short), state(1.0)]),
        prefixes(long, [attended(long), state(2.0, 3.0)]),
    ]
    whole = joined(parts)
    assert whole.ids.tolist() == [[0, 1, 2], [3, 4, 5], [0, 6, 7]]
    assert whole.mask.equal(whole.ids > 0)
    assert whole.types["kind"].equal(whole.ids)
    assert whole.lengths.tolist() == whole.after.tolist() == [2, 3, 2]
    keys, values = whole.layers[0].kept
    assert keys[:, 0, :, 0].equal(whole.ids.float())
    assert values.equal(-keys)
    assert whole.layers[1].conv_states[0][:, 0, 0].tolist() == [1.0, 2.0, 3.0]


def test_rows_of_a_shared_layer_may_repeat_and_leave_it_as_it_was() -> None:
    past = attended([[1, 2], [3, 4]])
    layer = SharedLayer(past, torch.tensor([1, 1, 0]))
    assert layer.get_seq_length() == 2
    keys, _ = layer.update(*(torch.full((3, 1, 1, 1), sign * 9.0) for sign in (1, -1)))
    assert keys[:, 0, :, 0].tolist() == [[3, 4, 9], [3, 4, 9], [1, 2, 9]]
    assert layer.get_seq_length() == 3
    assert past.kept is not None
    assert past.kept[0][:, 0, :, 0].tolist() == [[1, 2], [3, 4]]


def stretch(length: int, images: list[int]) -> Features:
    """Return features, some of which belong to image tokens only."""
    mask = torch.tensor([i in images for i in range(length)])
    deep = torch.arange(1.0, 1 + length * 6).view(length, 2, 3) * mask[:, None, None]
    positions = torch.arange(length)[:, None].expand(-1, 3) + torch.tensor([0, 0, 1])
    extra = {"visual": mask, "deep": deep}
    embeds = torch.arange(length * 4.0).view(length, 4)
    return Features(torch.arange(length), embeds, positions, {}, extra, {"deep": "visual"})


def test_features_of_image_tokens_are_packed_in_the_order_of_the_rows() -> None:
    both = padded([stretch(3, [1]), stretch(5, [0, 3])])
    extra = capture.as_given(both)
    assert [len(part) for part in extra["deep"]] == [3, 3]
    _, spread = capture._unpacked("deep", extra["deep"], {"visual": extra["visual"]})
    assert spread.equal(both.extra["deep"])
    assert extra["deep"][0][0].equal(stretch(3, [1]).extra["deep"][1, 0])


def test_a_cut_begins_at_position_0_whatever_its_axes() -> None:
    whole = stretch(5, [0, 3])
    part = whole.cut(2, 4)
    assert part.positions.tolist() == [[0, 0, 1], [1, 1, 2]]
    assert part.ids.tolist() == [2, 3]
    assert part.extra["visual"].tolist() == [False, True]
    assert part.kind == whole.kind
    again = features_of(whole.tensors(), whole.packed)
    assert again.kind == whole.kind
    assert again.extra["deep"].equal(whole.extra["deep"])
