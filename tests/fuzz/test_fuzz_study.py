"""The study gets bad settings, storages and journals: a sentence, and nothing else is touched."""

import copy
import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from texts import changed, damaged

from lever_plus.config.file import changed_params, load_params
from lever_plus.experiments.study.settings import StudySettings, read_settings
from lever_plus.experiments.study.space import check_space
from lever_plus.experiments.study.storage import find_study, open_study
from lever_plus.experiments.study.trials import check_trials
from lever_plus.files.yaml_files import dump_yaml, read_yaml
from tiny_world import ROOT

SEARCH = ROOT / "search" / "params.yaml"
CONTENT = read_yaml(SEARCH, "look")
PARAMS = load_params(ROOT / "params.yaml")
SPANS = ("learning_rate", "kl_beta", "hard_share", "shot_slope")


def _usable(settings: StudySettings) -> None:
    """Prove that settings that were taken can work."""
    space = settings.space
    check_space(PARAMS, space)
    for name in SPANS:
        span = getattr(space, name)
        assert math.isfinite(span.low)
        assert span.low < span.high < math.inf
        assert not span.log or span.low > 0
    assert 0 <= space.hard_share.low < space.hard_share.high <= 1
    assert not set(settings.seeds) & set(settings.fresh_seeds)
    assert len({*settings.seeds}) == len(settings.seeds)
    assert settings.top <= settings.trials


def _read(name: str, path: Path, content: bytes, places: Sequence[str]) -> Bad:
    def run() -> None:
        path.write_bytes(content)
        _usable(read_settings(path))

    return Bad(name, run, (*places,))


def _settings(**changes: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    for name, value in changes.items():
        *way, last = name.split("__")
        holder = content
        for key in way:
            holder = holder[key]
        holder[last] = value
    return content


def _spaces() -> Iterator[tuple[str, Any]]:
    """Yield (key, value) that no search space can have, and settings that contradict others."""
    for span in SPANS:
        for low, high in ((1.0, 0.5), (0.5, 0.5), (True, 1), (0, True), ("0", 1), (0, None)):
            yield f"space__{span}", {"low": low, "high": high}
        for low in (0.0, -1.0, -1e-9):
            yield f"space__{span}", {"low": low, "high": 1.0, "log": True}
        for low, high in ((-1e9, 0.5), (0.5, 1e9), (1e300, 1e308), (-1e308, 1e308)):
            yield f"space__{span}", {"low": low, "high": high}
        yield f"space__{span}", {"low": 0.1, "high": 0.5, "log": 1}
        yield f"space__{span}", {"low": 0.1, "hihg": 0.5}
        yield f"space__{span}", {"low": 0.1}
        yield f"space__{span}", [0.1, 0.5]
    for share in ((-0.1, 0.5), (0.5, 1.1), (-1.0, 2.0)):
        yield "space__hard_share", {"low": share[0], "high": share[1]}
    yield "space__learning_rate", {"low": 0.0, "high": 0.1}
    yield "space__kl_beta", {"low": -0.1, "high": 0.1}
    for epochs in (0, -1, 999, 10**30, 1.5, True, "4", [4], None):
        yield "space__epochs", epochs
    for taus in ([], [0.4, 0.4], [0.0], [-1.0], [True], ["0.4"], [1e-9], [9.0], 0.4, None, [[0.4]]):
        yield "space__tau_start", taus
    for methods in (
        *({}, None, [], {"all": []}, {"all": "beam"}, {"all": ["beams"]}, {"all": [None]}),
        *({"all": None, "any": None}, {"all": None, "b": ["beam", "beam"]}, {"": None}),
        *({"all": None, "b": ["beam", "sample"], "c": ["sample", "beam"]}, {"a\nb": None}),
        *({"beam": ["beam"]}, {"all": None, "r": ["retrieval"]}, {"../x": None}, {"all": 1}),
    ):
        yield "space__gen_methods", methods
    for name in ("", ".", "..", "a/b", "/etc", "-x", ".x", "a" * 101, "a b", "é", None, 5, "a\0"):
        yield "name", name
    for seeds in ([], [1, 1], [-1], [2**32], [True], [1.0], ["1"], None, 1, [11], [1, 12]):
        yield "seeds", seeds
    for fresh in ([], [11], [11, 11], [1, 11], [2, 1], [-1, 5], [True, False], None):
        yield "fresh_seeds", fresh
    for number in (0, -1, 1, 1.5, True, "30", None, 10**30):
        yield "trials", number
    for workers in (0, -1, 257, 10**9, True, 1.5, "2", None):
        yield "workers", workers
    for wide in (0, -1, 10**30, True, None):
        yield "startup_trials", wide
    for top in (0, -1, 31, 32, True, None, 1.5):
        yield "top", top
    for budget in (0.0, -1.0, True, "2", None, 1e308):
        yield "kl_budget", budget
    for stale in (0.0, -1.0, 1e-9, 1e300, True, "120", None):
        yield "stale_seconds", stale
    for seed in (-1, 2**32, True, 1.5, None, "0"):
        yield "sampler_seed", seed
    for storage in (
        *("", " ", "a\0b", "a\nb", "search/", "redis://host/0", "file:///x", "postgres://u@h/d"),
        *("http://host/x", "postgresql:/host/db", "journal:study.journal", None, 5, True, []),
        *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"),
        *("~/study.journal", "~someone/study.journal"),
    ):
        yield "storage", storage
    for key in ("trails", "spaces", "Name", "kl_budgets"):
        yield key, 1
    yield "space__epoch", 4


def test_impossible_search_spaces(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    inputs = [
        _read(
            f"{key} is {value!r}"[:80], path, json.dumps(content).encode(), (key.split("__")[-1],)
        )
        for key, value in _spaces()
        for content in [_settings(**{key: value})]
    ]
    counts = try_all("search/params.yaml: values", inputs)
    assert counts["fine"] == 0


def test_damaged_search_settings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    rng = random.Random(4)
    inputs = [_read(n, path, c, (path.name,)) for n, c in damaged(SEARCH.read_bytes(), rng, 150)]
    inputs += [
        _read(n, path, json.dumps(c).encode(), (path.name,)) for n, c in changed(CONTENT, rng, 250)
    ]
    try_all("search/params.yaml", inputs)


@pytest.mark.parametrize("key", ["name", "storage"])
def test_the_project_s_own_settings_are_usable(key: str) -> None:
    assert getattr(read_settings(SEARCH), key)
    _usable(read_settings(SEARCH))


def test_a_mistyped_key_has_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(dump_yaml(_settings(space__kl_betas={"low": 0.1, "high": 1.0})))
    with pytest.raises(Exception, match=r"unknown key space\.kl_betas \(did you mean kl_beta\?\)"):
        read_settings(path)


def test_every_proposal_gives_valid_params() -> None:
    from lever_plus.experiments.study.space import changes

    space, rng = read_settings(SEARCH).space, random.Random(5)
    for _ in range(100):
        values = {n: rng.uniform(getattr(space, n).low, getattr(space, n).high) for n in SPANS}
        values |= {"epochs": rng.randint(0, space.epochs), "tau_start": rng.choice(space.tau_start)}
        values["gen_methods"] = rng.choice(list(space.gen_methods))
        changed_params(PARAMS, changes(values, PARAMS, space))


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a journal with trials of every state."""
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    settings = _stored(path)
    study = open_study(settings)
    study.enqueue_trial({"epochs": 0}, user_attrs={"role": "baseline"})
    for number in range(4):
        trial = study.ask()
        space = settings.space
        for name in SPANS:
            span = getattr(space, name)
            trial.suggest_float(name, span.low, span.high, log=span.log)
        trial.suggest_int("epochs", 0, space.epochs)
        trial.suggest_categorical("tau_start", list(space.tau_start))
        trial.suggest_categorical("gen_methods", list(space.gen_methods))
        trial.report(0.1 * number, 0)
        trial.set_constraint("kl", -0.1)
        if number < 3:
            study.tell(trial, 0.1 * number)
    return path.read_bytes()


def _stored(path: Path) -> StudySettings:
    return read_settings(SEARCH).model_copy(update={"storage": str(path)})


def _opened(name: str, path: Path, content: bytes) -> Bad:
    def run() -> None:
        path.write_bytes(content)
        settings = _stored(path)
        try:
            study = find_study(settings)
            check_trials(study, settings.space)
            # What is left of it must say the same as the whole did.
            for trial in study.get_trials():
                assert trial.value in (None, pytest.approx(0.1 * trial.number))
            study.enqueue_trial({})
        except Exception:
            assert path.read_bytes() == content, "a file that was refused is as it was"
            raise
        assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
        assert find_study(settings).trials
        for kept in path.parent.glob("*.torn-*"):
            kept.unlink()

    return Bad(name, run, ("study.journal", "study grpo"))


def test_damaged_journals(tmp_path: Path, journal: bytes) -> None:
    """A number that became another number can't be noticed, so such changes are left out."""
    path, rng = tmp_path / "study.journal", random.Random(6)
    lines = journal.splitlines(keepends=True)
    inputs = [_opened(n, path, c) for n, c in damaged(journal, rng, 120) if "byte " not in n]
    for number in range(len(lines)):
        without = b"".join(lines[:number] + lines[number + 1 :])
        twice = b"".join([*lines[: number + 1], *lines[number:]])
        torn = b"".join(lines[:number]) + lines[number][: rng.randrange(len(lines[number]))]
        inputs.append(_opened(f"line {number + 1} is missing", path, without))
        inputs.append(_opened(f"line {number + 1} is twice there", path, twice))
        inputs.append(_opened(f"line {number + 1} is torn", path, torn))
        inputs.append(_opened(f"from line {number + 1} on", path, b"".join(lines[number:])))
    for name, content in changed([json.loads(line) for line in lines], rng, 130):
        if not all(isinstance(line, dict) for line in content) or "_internal" not in name:
            text = b"".join(json.dumps(line).encode() + b"\n" for line in content)
            inputs.append(_opened(name, path, text))
    try_all("journal of a study", inputs)


def test_places_that_are_no_storage(tmp_path: Path) -> None:
    """Folders, pipes, devices, other programs' files, databases that are not there."""
    around = tmp_path / "around"
    around.mkdir()
    (around / "folder").mkdir()
    os.mkfifo(around / "pipe")
    for name, content in (("model.safetensors", b"\x08" + b"\0" * 80), ("a.sqlite", b"SQLite 3\0")):
        (around / name).write_bytes(content)
    rng = random.Random(7)
    for number in range(60):
        (around / f"file{number}").write_bytes(rng.randbytes(rng.randrange(1, 400)))
    places = [str(around / each.name) for each in around.iterdir()] + ["/dev/zero", "/dev/null"]
    places += [f"sqlite:///{around / f'file{number}'}" for number in range(20)]
    places += [f"sqlite:///{around}/none{number}/a.db" for number in range(10)]
    places += [f"sqlite+none{n}:///{around}/x.db" for n in range(5)]
    places += [f"postgresql+psycopg://a:pass{n}word@127.0.0.1:{n}/d" for n in (1, "x", -1, 99999)]

    def opening(place: str) -> Bad:
        def run() -> None:
            open_study(read_settings(SEARCH).model_copy(update={"storage": place}))
            raise AssertionError("it was taken")

        return Bad(place, run, (place.partition("://")[2].rpartition("@")[2][:40], place))

    try_all("storage of a study", [opening(place) for place in places], untouched=around)
