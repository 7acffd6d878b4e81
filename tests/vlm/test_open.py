"""VLMs are opened from a folder, a server or a user's own code, and all answer alike."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lever_plus.config.file import load_params, overlay
from lever_plus.config.params import Params
from lever_plus.config.vlm import PluginVlmParams
from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.open import open_backend
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.backends.plugin import find_factory
from lever_plus.vlm.open import open_vlm
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Backend, Done, Request, VlmIdentity, ignore, scored_answer
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from lever_plus.vlm.usage import Usage
from tiny_world import ROOT, Folders, World

SHOWN = (Example("a.png", "which?", "cat", image_sha256="a"),)
QUERY = Query("b.png", "what?", "b")


class Parrot:
    """A user's own back end: it repeats a word."""

    def __init__(self, word: str, times: int = 1, *, loud: bool = False) -> None:
        """Keep what is said."""
        self.word = " ".join([word.upper() if loud else word] * times)
        self.identity = VlmIdentity(
            model="parrot", revision=self.word, dtype="-", prompt_hash="-", generation="-"
        )
        self.prompt, self.usage = PromptFormat(), Usage()
        self.asked = 0

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        self.asked += len(requests)
        answers = [f"{self.word} after {len(r.demonstrations)}" for r in requests]
        done(range(len(requests)), answers)
        return answers

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        self.asked += len(requests)
        values = [0.0 if scored_answer(r) in self.word else -9.0 for r in requests]
        done(range(len(requests)), values)
        return values


class Mute(Parrot):
    """One that answers nothing."""

    answers = None  # type: ignore[assignment]


def lacking(name: str) -> Parrot:
    """Return a parrot that lacks something."""
    made: Parrot = Mute("x") if name == "answers" else Parrot("x")
    if name == "identity":
        made.identity = {**made.identity, "dtype": None}  # type: ignore[typeddict-item]
    elif name == "revision":
        del made.identity["revision"]  # type: ignore[misc]
    elif name != "answers":
        delattr(made, name)
    return made


def nothing() -> None:
    """Return something that is not a back end."""


def settings(factory: str, **options: object) -> PluginVlmParams:
    content = {"kind": "plugin", "factory": factory, "options": options}
    return PluginVlmParams.model_validate(content)


def opened(params: Params, vlm: PluginVlmParams) -> Backend:
    return open_backend(vlm, params.scoring, None)


def test_a_back_end_of_the_user_s_own_answers(params: Params, tmp_path: Path) -> None:
    own = opened(params, settings("vlm.test_open:Parrot", word="polly", times=2, loud=True))
    vlm = StoredVlm(own, Store(tmp_path / "answers.sqlite"))
    requests = [Request(SHOWN, QUERY), Request((), QUERY)]
    assert vlm.answers(requests) == ["POLLY POLLY after 1", "POLLY POLLY after 0"]
    scored = [Request(SHOWN, QUERY, word) for word in ("POLLY", "cat")]
    assert vlm.log_likelihoods(scored) == [0.0, -9.0]
    again = Parrot("polly", 2, loud=True)
    assert StoredVlm(again, Store(tmp_path / "answers.sqlite")).answers(requests)
    assert again.asked == 0


def test_an_installed_package_offers_one_by_name(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "parrots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrots\nVersion: 1.0\n")
    points = "[lever_plus.backends]\nparrot = vlm.test_open:Parrot\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert opened(params, settings("parrot", word="x")).identity["model"] == "parrot"
    with pytest.raises(UserError, match=r"^vlm\.factory: there is no parot: choose one of parrot"):
        opened(params, settings("parot", word="x"))


def test_params_yaml_names_one(tmp_path: Path) -> None:
    """Options keep their types; those of the previous factory are removed."""
    path, preset = tmp_path / "params.yaml", tmp_path / "preset.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    preset.write_text("vlm: {kind: plugin, factory: 'a:b', options: {}}\n")
    with pytest.raises(
        UserError, match=r"evaluate\.instructions must be \[\] with vlm\.kind plugin"
    ):
        overlay(path, preset)
    rest = "evaluate: {instructions: []}\n"
    for options in ("{word: polly, times: 2}", "{word: x, loud: true, weight: 0.5, none: null}"):
        preset.write_text(f"vlm: {{kind: plugin, factory: 'a:b', options: {options}}}\n{rest}")
        overlay(path, preset)
    vlm = load_params(path).vlm
    assert isinstance(vlm, PluginVlmParams)
    assert vlm.options == {"word": "x", "loud": True, "weight": 0.5, "none": None}
    assert vlm.options["loud"] is True
    preset.write_text("vlm: {options: {word: [x]}}\n")
    with pytest.raises(UserError, match=r"vlm\.options\.word"):
        overlay(path, preset)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("answers", "it has no method answers(requests, done)"),
        ("identity", "its identity has no text for dtype"),
        ("revision", "its identity has no text for revision"),
        ("prompt", "its prompt is not a PromptFormat of lever_plus.vlm.prompt"),
        ("usage", "its usage is not a Usage of lever_plus.vlm.usage"),
    ],
)
def test_what_is_no_back_end_is_refused(params: Params, name: str, message: str) -> None:
    with pytest.raises(
        UserError, match=r"^vlm\.factory: .*is not a back end: " + re.escape(message)
    ):
        opened(params, settings("vlm.test_open:lacking", name=name))
    with pytest.raises(
        UserError, match=r"^the VLM, a \w+, is not a back end: " + re.escape(message)
    ):
        open_vlm(lacking(name))


def test_a_factory_that_makes_nothing_is_refused(params: Params) -> None:
    with pytest.raises(UserError, match="what vlm.test_open:nothing returned, a NoneType"):
        opened(params, settings("vlm.test_open:nothing"))


@pytest.mark.parametrize("options", [{"wrod": "x"}, {}, {"word": "x", "more": 1}], ids=str)
def test_options_that_the_factory_does_not_have_are_named(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^vlm\.options: .*Parrot cannot be called with them"):
        find_factory(settings("vlm.test_open:Parrot", **options))


def test_an_error_inside_a_factory_is_its_own(params: Params) -> None:
    with pytest.raises(TypeError, match="multiply"):
        opened(params, settings("vlm.test_open:Parrot", word="x", times=0.5))


def test_a_vlm_is_opened_by_its_folder(
    folders: Folders, world: World, params: Params, tmp_path: Path
) -> None:
    store = tmp_path / "answers.sqlite"
    shown, query = tuple(world.splits["train"][:2]), world.splits["test"][0]
    requests = [Request(shown[:k], query.query) for k in range(3)]
    changed = params.vlm.model_copy(update={"max_new_tokens": 3})
    assert changed.kind == "huggingface"
    reference = HuggingFaceVlm(str(folders.vlm), changed)
    vlm = open_vlm(folders.vlm, store=store, max_new_tokens=3)
    assert vlm.identity == reference.identity
    assert vlm.answers(requests) == [text.strip() for text in reference.answers(requests)]
    assert vlm.usage.hits == 0
    again = open_vlm(str(folders.vlm), store=store, max_new_tokens=3)
    assert again.answers(requests) == vlm.answers(requests)
    assert again.usage.hits == 3
    flat = open_vlm(folders.vlm, style="flat", instruction="Briefly.")
    assert flat.prompt == PromptFormat("flat", "Briefly.")


def test_a_vlm_is_opened_by_its_server() -> None:
    vlm = open_vlm("m", url="http://127.0.0.1:9/v1", revision="r", instruction="Briefly.")
    assert isinstance(vlm._backend, OpenAiVlm)
    assert vlm._backend.params.url == "http://127.0.0.1:9/v1"
    named = vlm._backend.identity
    assert (named["model"], named["revision"]) == ("m", "r")
    assert vlm.prompt.instruction == "Briefly."


def test_a_back_end_is_opened_as_it_is(tmp_path: Path) -> None:
    own = Parrot("polly")
    vlm = open_vlm(own, store=tmp_path / "answers.sqlite")
    request = Request(SHOWN, QUERY)
    assert vlm.answers([request]) == ["polly after 1"]
    assert vlm.answers([request]) == ["polly after 1"]
    assert own.asked == 1


@pytest.mark.parametrize(
    ("model", "arguments", "name"),
    [
        ("m", {"style": "prose"}, "style"),
        ("m", {"instruction": "a\0b"}, "instruction"),
        ("m", {"dtype": "float8"}, "dtype"),
        ("m", {"device": "cudda"}, "device"),
        ("m", {"max_new_tokens": 0}, "max_new_tokens"),
        ("m", {"max_new_tokens": True}, "max_new_tokens"),
        ("m", {"workers": "2"}, "workers"),
        ("m", {"store": ""}, "store"),
        ("m", {"store": 5}, "store"),
        ("m", {"revision": 5}, "revision"),
        ("", {}, "model"),
        ("a\0b", {}, "model"),
        ("", {"url": "http://127.0.0.1:9/v1"}, "model"),
        ("m", {"url": "127.0.0.1:9"}, "url"),
        ("m", {"url": ""}, "url"),
        ("m", {"url": "http://u:pa55word@h/" + "x" * 5000}, "url"),
        (Parrot("x"), {"store": ""}, "store"),
    ],
)
def test_arguments_that_none_can_have_are_named_and_nothing_is_stored(
    model: str | Parrot,
    arguments: dict[str, object],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"store": "answers.sqlite", **arguments}
    with pytest.raises(UserError, match=rf"^open_vlm: {name}: .*: correct this argument") as caught:
        open_vlm(model, **given)  # type: ignore[arg-type]
    assert "pa55word" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_identity_of_any_mapping_is_kept_as_it_was(tmp_path: Path) -> None:
    own = Parrot("polly")
    own.identity = MappingProxyType(dict(own.identity))  # type: ignore[assignment]
    vlm = open_vlm(own, store=tmp_path / "answers.sqlite")
    vlm.answers([Request(SHOWN, QUERY)])
    (row,) = Store(tmp_path / "answers.sqlite").statistics()
    assert row.identity == dict(own.identity)


@pytest.mark.parametrize(
    "more",
    [
        *({"seed": "1"}, {"seed": 1}, {"seed": {1}}, {"seed": float("nan")}, {3: "x"}),
        *({"model": "a\nb"}, {"revision": "\x1b[2J"}, {"dtype": "\u202e"}, {"model": "\ud800"}),
    ],
)
def test_an_identity_that_no_store_could_be_read_with_is_refused(
    more: dict[Any, Any], tmp_path: Path
) -> None:
    """What was stored before stays readable."""
    path = tmp_path / "answers.sqlite"
    open_vlm(Parrot("before"), store=path).answers([Request(SHOWN, QUERY)])
    own = Parrot("polly")
    own.identity = {**own.identity, **more}  # type: ignore[typeddict-item]
    with pytest.raises(UserError, match=r"its identity has (seed|3) besides|cannot be printed"):
        open_vlm(own, store=path).answers([Request(SHOWN, QUERY)])
    assert [row.answers for row in Store(path).statistics()] == [1]


@pytest.mark.parametrize(
    ("whole", "run"), [(3, -5), (3, 4), (1, float("nan")), (3, "x"), (None, 1), (-1, -1), (True, 0)]
)
def test_counts_of_tokens_that_cannot_be_are_refused(whole: Any, run: Any) -> None:
    own = Parrot("polly")
    own.usage.tokens_whole, own.usage.tokens_run = 30, 10
    vlm = open_vlm(own)
    assert vlm.usage.saved == pytest.approx(2 / 3)
    own.usage.tokens_whole, own.usage.tokens_run = whole, run
    with pytest.raises(UserError, match=r"its usage says that .* tokens were run"):
        vlm.answers([Request(SHOWN, QUERY)])
    with pytest.raises(UserError, match=r"its usage says that .* tokens were run"):
        open_vlm(own)
