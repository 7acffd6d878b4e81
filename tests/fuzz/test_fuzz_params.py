"""Every setting gets bad values: each is refused by the setting's name, or can work."""

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest
from doors import Bad, try_all
from ruamel.yaml import YAML
from texts import changed

from lever_plus.config.file import changed_params, load_params, load_with_preset
from lever_plus.config.house_words import RecipeParams
from lever_plus.config.params import Params
from lever_plus.files.checking import checked
from lever_plus.house_words.recipe.places import Places, read_recipe
from pipeline.params_table import SETTINGS
from tiny_world import ROOT

PARAMS: Final = load_params(ROOT / "params.yaml")
VALUES: Final[tuple[Any, ...]] = (
    *(-1, 0, 1, -0.0, 1.0, 1e308, 1e-308, 10**30, 2**63, math.nan, math.inf, True, None, [], {}),
    *("", " ", "x", "1", "a\0b", "\ud800", "x" * 5_000, ["x"], [1, 1], [[]], {"a": 1}, {"1": 1}),
)
LARGEST: Final = 2**32
"""No setting is larger, and only a share may be between 0 and 1e-9."""
SHARES: Final = ("share", "scarcity", "dropout", "min_informative", "diverse_relevance")
LISTS: Final = ("rl_data.scores", "evaluate.selectors", "evaluate.instructions")
TABLES: Final = ("rl_data.samples", "rl_data.stochastic_beam")
OPTIONAL: Final = ("revision", "address", "patience", "_bits", "_methods", "_target")
TEXTS: Final = ("path", "revision", "address", "store", "instruction")


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def found(params: Params, key: str) -> Any:
    content: Any = params.model_dump()
    for part in key.split("."):
        content = content[part]
    return content


def check_can_work(key: str, value: Any) -> None:
    """Assert that a value which was taken is one that a stage can use."""
    if isinstance(value, bool):
        assert key == "vlm.prefix_reuse"
    elif isinstance(value, int | float):
        assert math.isfinite(value)
        assert 0 <= value <= LARGEST
        assert value == 0 or value >= 1e-9 or key.endswith(SHARES)
    elif isinstance(value, str):
        assert key.endswith(TEXTS)
        assert "\0" not in value
        assert value.strip() or key == "vlm.prompt.instruction"
        value.encode("utf-8")
    elif value is None:
        assert key.endswith(OPTIONAL)
    else:
        assert (
            (value == [] and key in LISTS)
            or (value == ["x"] and key == "evaluate.instructions")
            or (value == {} and key in TABLES)
            or value == {"1": 1}
        )


def bad(key: str, value: Any) -> Bad:
    def run() -> None:
        params = changed_params(PARAMS, nested(key, value))
        check_can_work(key, value)
        assert found(params, key) == value

    shown = repr(value)
    return Bad(f"{key} is {shown[:40]}", run, (key, key.rpartition(".")[2]))


def test_settings_that_cannot_work() -> None:
    try_all("settings", (bad(key, value) for key in SETTINGS for value in VALUES))


def test_a_recipe_that_cannot_work() -> None:
    """All settings of the shipped models are numbers, except the names of the VLMs."""
    places = Places(ROOT)
    content = read_recipe(places.params).model_dump()

    def recipe(key: str, value: Any) -> Bad:
        def run() -> None:
            other = copy.deepcopy(content)
            section = other
            *parents, name = key.split(".")
            for parent in parents:
                section = section[parent]
            section[name] = value
            made = checked(RecipeParams, other, "recipe", "look")
            check_can_work(key, dict(leaves(made.model_dump()))[key])

        return Bad(f"{key} is {value!r:.40}", run, (key, key.rpartition(".")[2]))

    def named(name: str) -> Bad:
        vlms = {name: content["vlms"]["vlm"]}

        def run() -> None:
            checked(RecipeParams, {**content, "vlms": vlms}, "recipe", "look")
            assert name.isascii()
            assert name.isalnum()

        return Bad(f"a VLM {name!r:.40}", run, ("vlms",))

    keys = [key for key, _ in leaves(content)]
    names = [value for value in (*VALUES, "clip", "Clip", "../x", "a/b") if isinstance(value, str)]
    settings = (recipe(key, value) for key in keys for value in VALUES)
    try_all("recipe", (*settings, *map(named, names)))


MODE: Final = {"mode": "legacy", "alpha": 0.5, "beta": 1.0, "correctness_mode": "01"}
KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "files and a server": {
        **load_with_preset(
            ROOT / "params.yaml", ROOT / "presets" / "okvqa-qwen2.5-vl-3b.yaml"
        ).model_dump(include={"data", "embed", "pool"}),
        **YAML(typ="safe").load((ROOT / "presets" / "vllm.yaml").read_text(encoding="utf-8")),
    },
    "another network, a mode, a plugin": {
        "policy": {"kind": "v2", "hidden": 16, "layers": 1, "temperature": 0.1},
        "reward": {**MODE, "use_logprob": False, "clip": 5.0, "shot_weights": [0.25] * 4},
        "vlm": {"kind": "plugin", "factory": "a:b", "options": {"a": 1, "b": "x", "c": None}},
        "agro": {"rounds": 0},
        "grpo": {"rounds": 0, "kl_target": [0.1, 0.2]},
        "stop": None,
        "evaluate": {"instructions": []},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_other_kinds_that_cannot_work(kind: str) -> None:
    """Values that are taken contain only numbers and texts that a stage can use."""
    content = dict(KINDS[kind])
    changed_params(PARAMS, content)

    def made(name: str, changes: Mapping[str, Any]) -> Bad:
        def run() -> None:
            params = changed_params(PARAMS, changes)
            for key, value in leaves(params.model_dump()):
                if isinstance(value, int | float):
                    assert abs(value) <= LARGEST or key.startswith("vlm.options"), key
                assert not isinstance(value, str) or "\0" not in value or "options" in key, key

        parts = name.split(" ", maxsplit=1)[0].split(".")
        return Bad(name, run, tuple(part for part in parts if not part.isdigit()))

    rng = random.Random(4)
    try_all(f"settings, {kind}", (made(n, c) for n, c in changed(content, rng, 300)))


def leaves(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of all values that contain no other values."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from leaves(value, f"{place}.{key}".lstrip("."))
    else:
        yield place, content


def _keyed(make: Callable[[str], dict[str, Any]], texts: list[str]) -> list[Bad]:
    return [
        Bad(f"{make(text)}", lambda text=text: _refused(make(text)), ("samples", "image_name"))
        for text in texts
    ]


def _refused(changes: dict[str, Any]) -> None:
    changed_params(PARAMS, changes)
    raise AssertionError("it was taken")


def test_temperatures_that_are_none() -> None:
    texts = [
        *("hot", "nan", "inf", "-inf", "0", "-1.0", "0.0", "1e999", "1e-9", "1_0", " 1", "1 ", ""),
        *(
            "\u0661",
            "+1",
            "1.",
            ".5",
            "0x1",
            "1,5",
            "1e5",
            "1e",
            "--1",
            "1\n",
            "1.0.0",
            "true",
            "½",
        ),
    ]
    rng = random.Random(2)
    texts += ["".join(rng.choices("ab-+_ %,\u0660", k=rng.randrange(1, 5))) for _ in range(60)]
    texts += [str(-rng.random() * 10 ** rng.randrange(-9, 9)) for _ in range(20)]
    same = [{"1": 1, "1.0": 1}, {"1.0": 1, "1.00": 2}, {"0.5": 1, "5e-1": 1}]
    inputs = _keyed(lambda text: {"rl_data": {"samples": {text: 2}}}, texts)
    inputs += [
        Bad(f"{each}", lambda each=each: _refused({"rl_data": {"samples": each}}), ("samples",))
        for each in same
    ]
    try_all("temperatures", inputs)


def test_temperatures_that_are_some() -> None:
    samples = {"1": 1, "1.3": 2, "0.001": 1, "1e1": 1, "1E-1": 1}
    assert changed_params(PARAMS, {"rl_data": {"samples": samples}}).rl_data.samples == samples


def _files(image_name: str) -> dict[str, Any]:
    split = {"questions": "q", "annotations": "a", "images": "i", "sample": None}
    split["image_name"] = image_name
    source = {
        **{"kind": "vqa_files", "root": "r", "answers_per_question": 10, "allow_fallback": False},
        **{"train": split, "dev": {"held_out": 5}, "test": split},
    }
    models = {"vlm": {"path": "v"}, "embed": {"path": "e"}}
    return {"data": {"source": source}, "pool": {"scarcity": 0.0}, **models}


def test_image_names_that_are_none() -> None:
    texts = [
        *("", "a.jpg", "{image_id", "image_id}", "{image_id}{split}", "{image_id.real}", "{}.jpg"),
        *("{image_id[0]}", "{image_id!r}", "{image_id:999999999d}", "{image_id:x}", "{image_id:q}"),
        *(
            "/{image_id}.jpg",
            "../{image_id}.jpg",
            "a/../{image_id}",
            "{image_id}\0",
            "{0}{image_id}",
        ),
        *("{image_id:{image_id}}", "{{image_id}}", "{image_id}{", "}{image_id}", "{image_id: }"),
    ]
    rng = random.Random(3)
    texts += [
        "{image_id" + "".join(rng.choices(".![]:0{}x", k=rng.randrange(1, 6))) + "}{"
        for _ in range(90)
    ]
    try_all("names of images", _keyed(_files, texts))


@pytest.mark.parametrize(
    "name", ["{image_id}.jpg", "COCO_{image_id:012d}.jpg", "{image_id}/frame.jpg", "{image_id:06}"]
)
def test_image_names_that_are_some(name: str) -> None:
    source = changed_params(PARAMS, _files(name)).data.source
    assert source.model_dump()["train"]["image_name"] == name
