"""The pages of the reference say what the code says."""

import dataclasses
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from documentation.pages import api, commands, leaves, params, write_reference
from glossary_entries import explained
from lever_plus.data import pool_folder
from lever_plus.data.examples import ExampleRow
from lever_plus.data.lists import FIELDS, read_list
from lever_plus.data.pools import PoolRow
from lever_plus.data.vqa_files import Annotation, AnnotationsFile, Question, QuestionsFile, load
from lever_plus.evaluation import ablations, evaluate, stored
from lever_plus.features import kept
from lever_plus.features.whitening import PARTS
from lever_plus.pipeline.searches import PrefixRow, SearchRow
from lever_plus.policy.checkpoint import FORMAT, CheckpointConfig, EncoderFacts
from lever_plus.policy.network import PolicyConfig
from lever_plus.tracking.history import read_history
from lever_plus.training.rl_data.headroom import Headroom
from lever_plus.training.rl_data.records import Candidate, Meta, QueryRecord, Shot
from lever_plus.vlm.request import VlmIdentity
from lever_plus.vlm.store import schema
from tiny_world import ROOT

FILES = (ROOT / "docs" / "reference" / "files.md").read_text("utf-8")
WRITTEN = write_reference.pages()


def fields(kind: Any) -> set[str]:
    """Return the names that a kind of row has in files."""
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    if hasattr(kind, "model_fields"):
        return {field.alias or name for name, field in kind.model_fields.items()}
    return set(getattr(kind, "__struct_fields__", kind.__annotations__))


def columns(statement: str) -> set[str]:
    """Return the columns of a table that an SQL statement makes."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute(statement)
        (name,) = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchone()
        return {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}


def section(title: str) -> str:
    """Return a section of the page about files."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", FILES, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_a_page_is_what_the_code_says(path: Path) -> None:
    assert path.read_text("utf-8") == WRITTEN[path], "run `python docs/tools/write_reference.py`"


def test_there_is_a_page_for_every_subpackage_and_for_no_other() -> None:
    folder = ROOT / "docs" / "reference" / "api"
    assert {path.stem for path in folder.glob("*.md")} == {"index", *api.subpackages()}


def test_every_parameter_is_on_its_page_with_a_meaning() -> None:
    listed = {leaf.key: leaf for part in params.sections() for leaf in part.leaves}
    assert [key for key in leaves() if key not in listed] == []
    assert [key for key, leaf in listed.items() if not leaf.meaning or not leaf.kind] == []


def test_every_argument_and_option_says_what_it_is() -> None:
    silent = [
        f"{name} {commands.spelled(each)}"
        for name, command in commands.commands()
        for each in commands.shown(command)
        if not each.help
    ]
    assert silent == []


def test_the_ranges_of_parameters_are_those_that_are_checked() -> None:
    kinds = {leaf.key: leaf.kind for part in params.sections() for leaf in part.leaves}
    assert kinds["embed.variance"] == "number, 0.01 to below 1"
    assert kinds["pool.size"] == "whole number, 2 or more"
    assert kinds["reward.bias"] == "number"
    assert kinds["scoring.ray.num_cpus"] == "number, 0.0001 to 10,000"
    assert kinds["seed"] == "whole number, 0 to 4,294,967,295"
    assert kinds["sft.patience"] == "whole number, 1 or more; or `null`"


def test_the_stages_of_parameters_are_those_that_read_them() -> None:
    read = params.Readers()
    assert read.of("grpo.kl_beta") == "grpo"
    assert read.of("grpo.start") == "grpo, evaluate"
    assert read.of("scoring.store").startswith("no result (in_context, sft_data")
    assert read.of("pool.size") == "pool"


def test_every_metric_of_the_glossary_has_a_heading() -> None:
    text = WRITTEN[write_reference.REFERENCE / "metrics.md"]
    assert [name for name in write_reference.metrics.GLOSSARY if f"| `{name}` |" not in text] == []


FIELDS_OF = {
    "A list of examples": FIELDS,
    "VQAv2 files": fields(Question) | fields(Annotation),
    "Examples": fields(ExampleRow) | {"first", "second", "bits"},
    "Features": {f"{part}.npy" for part in PARTS} | {"white.npy", "meta.json", "ids", "data"},
    "Pools": fields(PoolRow),
    "InfoScore searches": fields(SearchRow) | fields(PrefixRow),
    "RL data": fields(Meta)
    | fields(VlmIdentity)
    | fields(QueryRecord)
    | fields(Candidate)
    | fields(Shot),
    "Checkpoints": fields(CheckpointConfig)
    | fields(EncoderFacts)
    | fields(PolicyConfig)
    | {FORMAT},
    "Score table": fields(evaluate.Row),
    "Answer store": {column for table in schema.TABLES.values() for column in columns(table)},
    "Kept features": columns(kept.TABLE),
    "The folder of a pool": columns(pool_folder.TABLE)
    | {pool_folder.FILE, f"{pool_folder.IMAGES}/"},
    "Metrics": {
        *fields(stored.SummaryPart),
        *fields(stored.MethodPart),
        *fields(stored.ShotPart),
        *fields(stored.DifferencePart),
        *fields(stored.SpreadPart),
        *fields(stored.StopPart),
        *fields(stored.PricePart),
        *fields(stored.DiagnosticsPart),
        *fields(stored.CopyPart),
        *fields(stored.OrderPart),
        *fields(ablations.AblationsPart),
        *fields(ablations.AblationPart),
        *fields(Headroom),
    },
}


@pytest.mark.parametrize("title", FIELDS_OF)
def test_every_field_of_a_file_is_described(title: str) -> None:
    named = set(re.findall(r"`([^`\n]+)`", section(title)))
    assert sorted(FIELDS_OF[title] - named) == []


def test_the_committed_metrics_have_no_field_that_is_not_described() -> None:
    """But for names of methods, shots, splits and probes, which are data."""
    named = set(re.findall(r"`([^`\n]+)`", section("Metrics")))
    for name in ("summary", "stop", "diagnostics", "ablations", "ideal_reader"):
        content = json.loads((ROOT / "metrics" / f"{name}.json").read_text("utf-8"))
        assert sorted(_keys(content) - named) == [], name


def _keys(content: Any) -> set[str]:
    if isinstance(content, list):
        return {key for each in content for key in _keys(each)}
    if not isinstance(content, dict):
        return set()
    # The identity of the VLM is described with the RL data; numbers and "none" are counts.
    inner = {key: value for key, value in content.items() if not re.fullmatch(r"\d+|none", key)}
    own = set() if "prompt_hash" in content else set(inner)
    return own.union(*(_keys(value) for value in content.values()))


def examples(title: str) -> list[str]:
    """Return the blocks of a section that show a file."""
    return re.findall(r"^```jsonl?\n(.*?)^```$", section(title), re.DOTALL | re.MULTILINE)


def test_the_files_that_are_shown_can_be_read(tmp_path: Path) -> None:
    (listed,) = examples("A list of examples")
    path = tmp_path / "pool.jsonl"
    path.write_text(listed, encoding="utf-8")
    for row in map(json.loads, listed.splitlines()):
        (tmp_path / row["image"]).parent.mkdir(exist_ok=True)
        (tmp_path / row["image"]).touch()
    assert [example.answer for example in read_list(path, tmp_path).values()] == ["green", "2"]

    asked, answered = examples("VQAv2 files")
    path.write_text(asked, encoding="utf-8")
    assert load(path, QuestionsFile, "questions").questions[0].question_id == 262148000
    path.write_text(answered, encoding="utf-8")
    assert load(path, AnnotationsFile, "annotations").annotations[0].answers[0].answer == "down"

    (history,) = examples("Histories")
    path.write_text(history, encoding="utf-8")
    (row,) = read_history(path)
    assert all(explained(f"train/{key}") for key in row.keys() - {"step", "dev_reward"})

    for kind, text in (
        (PoolRow, *examples("Pools")),
        (SearchRow, *examples("InfoScore searches")),
        (Meta, examples("RL data")[0]),
        (QueryRecord, examples("RL data")[1]),
    ):
        TypeAdapter(kind).validate_json(text)
