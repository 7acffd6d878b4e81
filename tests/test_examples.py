"""The scripts in examples/ run on tiny models, and give what the library gives."""

import ast
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from lever_plus import Query, load_selector, open_vlm, read_pool
from lever_plus.config.file import overlay
from lever_plus.data.examples import write_examples
from lever_plus.data.pools import Pools, draw_pools, write_pools
from lever_plus.features.whitening import SPACE, read_feature_space
from lever_plus.pipeline.paths import Paths
from lever_plus.policy.checkpoint import load_checkpoint
from lever_plus.training.rl_data.records import Candidate, Meta, QueryRecord, Shot, write_rl_data
from lever_plus.vlm.request import Request
from tiny_checkpoint import IDENTITY, embed, make_checkpoint, pool_lines
from tiny_world import ROOT, Folders, World

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
POOL, SHOTS = 8, 4


Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script in a folder of its own, as the command line does; returns what it prints."""

    def run(script: str, *arguments: object) -> list[str]:
        path = ROOT / "examples" / f"{script}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        assert ended.value.code == 0
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_run_here(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    assert f'run("{path.stem}", ' in Path(__file__).read_text(encoding="utf-8")


@pytest.fixture
def pool(world: World, tmp_path: Path) -> Path:
    lines = [json.dumps(line) + "\n" for line in pool_lines(world.splits["train"][:10])]
    (tmp_path / "pool.jsonl").write_text("".join(lines))
    return tmp_path / "pool.jsonl"


def test_it_selects_for_a_new_question(
    run: Run, world: World, folders: Folders, pool: Path, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "made", world, folders)
    query = Query(world.splits["test"][0].image, "What colour is it?")
    options = ["--checkpoint", checkpoint, "--pool", pool, "--vlm", folders.vlm]
    said = run("select_for_a_new_question", query.image, query.question, *options)
    chosen = load_selector(checkpoint).select(query, read_pool(pool), 2)
    answers = open_vlm(folders.vlm).answers([Request((), query), Request(tuple(chosen), query)])
    assert said == [
        *(f"{n}. {e.question} {e.answer} ({e.image})" for n, e in enumerate(chosen, start=1)),
        f"without demonstrations: {answers[0]}",
        f"with them: {answers[1]}",
    ]


def test_it_evaluates_a_selector_of_ones_own(
    run: Run, world: World, folders: Folders, pool: Path, tmp_path: Path
) -> None:
    lines = [
        json.dumps({"image": e.image, "question": e.question, "answers": e.answers}) + "\n"
        for e in world.splits["test"]
    ]
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    files = ["--questions", "questions.jsonl", "--pool", pool, "--vlm", folders.vlm]
    said = run("evaluate_your_own_selector", *files)
    rows = [line.split()[:2] for line in said[1:6]]
    assert rows == [
        ["zero-shot", "0"],
        *([name, shots] for name in ("random", "words") for shots in ("1", "2")),
    ]
    assert [line.partition(":")[0] for line in said[6:]] == [
        f"words minus random, shots {shots}" for shots in ("1", "2", "mean")
    ]
    assert all(line.endswith(" points") for line in said[6:])


def test_a_large_pool_is_seen_whole_drawn_and_by_its_neighbours(
    run: Run, world: World, folders: Folders, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "selector", world, folders)
    for split in ("train", "test"):
        path = tmp_path / "artifacts" / "prepare" / f"{split}.jsonl"
        write_examples(path, world.splits[split])
    said = run("choose_from_a_large_pool", "--checkpoint", checkpoint, "--questions", 4)
    pool = len(world.splits["train"])
    rows = [tuple(line.split()[:2]) for line in said]
    assert (str(pool), "drawn") in rows
    assert said[-2:] == [f"{n} nearest hold 100% of the whole pool's picks" for n in (64, 256)]


def make_project(folder: Path, world: World, folders: Folders) -> Pools:
    """Write what the third script reads: settings, examples, pools, features, RL data."""
    paths = Paths(folder)
    settings = folder / "params.yaml"
    settings.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    overlay(settings, ROOT / "presets" / "smoke.yaml")
    change = folder / "own.yaml"
    YAML().dump({"vlm": {"path": str(folders.vlm)}, "rce": {"epochs": 3}}, change)
    overlay(settings, change)
    for split, examples in world.splits.items():
        write_examples(paths.prepare / f"{split}.jsonl", examples, folder)
    queries = [e for examples in world.splits.values() for e in examples]
    train = world.splits["train"]
    drawn = draw_pools(queries, train, POOL, "per_query", np.random.default_rng(0))
    embed(paths.embed, world, folders)
    pools = write_pools(paths.pools, drawn)
    meta = Meta(
        vlm=IDENTITY,
        metric="VQA accuracy",
        pool_sha256=pools.sha256,
        feature_space=read_feature_space(paths.embed / SPACE).sha256,
        policy_sha256="0" * 64,
        records=len(train),
    )
    write_rl_data(folder / "mine", meta, [_record(e.question_id, pools) for e in train])
    return pools


def _record(query: int, pools: Pools) -> QueryRecord:
    """Return two pointers; the first is right at every shot, the second wrong."""
    pool = pools.of(query)
    return QueryRecord(
        query_id=query,
        question_id=query,
        pool=pool,
        candidates=tuple(
            Candidate(
                pointer=pointer,
                gen_method="random",
                temperature=None,
                step_log_probs=None,
                shots=tuple(
                    Shot(
                        shot=shot,
                        answer="x",
                        vqa_correct=right,
                        vqa_acc_score=float(right),
                        fallback=False,
                    )
                    for shot in range(1, SHOTS + 1)
                ),
            )
            for pointer, right in ((pool[:SHOTS], 1), (pool[-SHOTS:], 0))
        ),
    )


def test_it_trains_on_rl_data_of_ones_own(
    run: Run, world: World, folders: Folders, tmp_path: Path
) -> None:
    """Its loss falls, and what it saves chooses what it says."""
    pools = make_project(tmp_path, world, folders)
    options = ["--rl-data", "mine", "--encoder", folders.clip, "--out", "selector"]
    said = run("train_on_your_own_rl_data", *options)
    rows = [ast.literal_eval(line) for line in said[:4]]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["loss"] < rows[1]["loss"] < 1.05 * rows[1]["uniform_loss"]
    question = world.splits["test"][0]
    pool = [world.examples[i] for i in pools.of(question.question_id)]
    selector = load_selector(tmp_path / "selector")
    chosen = selector.select(question.query, pool, SHOTS)
    assert said[4:] == [f"{example.question} {example.answer}" for example in chosen]
    found = load_checkpoint(tmp_path / "selector")
    assert found.config.pool_sha256 == pools.sha256
    assert found.config.encoder.path == str(folders.clip)
    assert found.config.training["method"] == "rce"
