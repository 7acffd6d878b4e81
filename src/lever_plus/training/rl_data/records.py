"""RL data: a folder with `meta.json`, `records.jsonl` (one query a line) and `schema.json`.

Every pointer names example ids. Every line is checked against the schema when it is read, and every
pointer against its query's pool; a file that was cut off is noticed by its number of records.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lever_plus.config.rl_data import GenMethod
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.vlm.request import VlmIdentity


class Record(BaseModel):
    """Base of all parts: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shot(Record):
    """The VLM's answer with the first `shot` ICDs of a pointer, and its score."""

    shot: Annotated[int, Field(ge=1)]
    answer: str
    vqa_correct: Literal[0, 1]
    vqa_acc_score: Annotated[float, Field(ge=0, le=1)]
    fallback: bool = Field(description="an exact match, not the official metric")
    vqa_gt_prob: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="probability of the true answer; null: not asked for"
    )
    vqa_rel_score: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="nearness to a human answer; null: not asked for"
    )


class Candidate(Record):
    """A pointer with its origin and its scores.

    Lever-Plus scores every shot 1..T; imported data may have the score at shot T alone.
    """

    pointer: tuple[int, ...]
    gen_method: GenMethod
    temperature: float | None = Field(description="of the sampling; null for beam and random")
    step_log_probs: tuple[float, ...] | None = Field(
        description="under the distribution it came from; null where that is not known"
    )
    log_prob: float | None = Field(
        default=None, description="of the whole pointer, where the steps' are not known"
    )
    shots: Annotated[tuple[Shot, ...], Field(min_length=1)]

    @property
    def total_log_prob(self) -> float | None:
        """Return the log-probability of the pointer under what generated it, None if not known."""
        return self.log_prob if self.step_log_probs is None else sum(self.step_log_probs)

    @model_validator(mode="after")
    def _one_of_each_per_pick(self) -> "Candidate":
        numbers = [shot.shot for shot in self.shots]
        if numbers != sorted(set(numbers)) or numbers[-1] != len(self.pointer):
            raise ValueError(f"shots are {numbers}, but the pointer has {len(self.pointer)} ICDs")
        if self.step_log_probs is not None and len(self.step_log_probs) != len(self.pointer):
            raise ValueError("step_log_probs and pointer differ in length")
        return self


class QueryRecord(Record):
    """All candidates of one query: a group."""

    query_id: int
    question_id: int
    pool: tuple[int, ...]
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]


class Meta(Record):
    """What the whole data set was made with."""

    vlm: VlmIdentity
    metric: str
    pool_sha256: str
    feature_space: str
    policy_sha256: str
    records: int


def write_rl_data(folder: Path, meta: Meta, records: Sequence[QueryRecord]) -> None:
    """Write the three files; equal data give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "meta.json", json.dumps(meta.model_dump(), indent=2, sort_keys=True))
    schema = json.dumps(QueryRecord.model_json_schema(), indent=2, sort_keys=True)
    _write(folder / "schema.json", schema)
    # Scores that were not asked for are left out: they are most of the lines otherwise.
    lines = [
        json.dumps(r.model_dump(exclude_defaults=True), ensure_ascii=False, sort_keys=True)
        for r in records
    ]
    _write(folder / "records.jsonl", "\n".join(lines))


def read_rl_data(folder: Path, pools: Pools) -> tuple[Meta, list[QueryRecord]]:
    """Read RL data and check it.

    Raises:
        UserError: A file is missing, cut off or damaged (file and line are named), or the data
            were made for other pools.
        PointerError: A pointer names an example outside its query's pool, or one twice.
    """
    meta_path, path = folder / "meta.json", folder / "records.jsonl"
    if not meta_path.is_file() or not path.is_file():
        raise UserError(f"{folder} holds no RL data: run `dvc repro rl_data`.")
    meta = _read_meta(meta_path)
    if meta.pool_sha256 != pools.sha256:
        raise UserError(
            f"{meta_path}: made for pools {meta.pool_sha256[:12]}, not {pools.sha256[:12]}: "
            "run `dvc repro rl_data`."
        )
    records = list(_records(path))
    if len(records) != meta.records:
        raise UserError(
            f"{path} holds {len(records)} records, {meta_path} promises {meta.records}: the file "
            "was cut off. Run `dvc checkout`, or `dvc repro rl_data`."
        )
    for record in records:
        for candidate in record.candidates:
            pools.positions(record.query_id, candidate.pointer)
    return meta, records


def _read_meta(path: Path) -> Meta:
    try:
        return Meta.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged, or of another version ({error.errors()[0]['msg']}): run "
            "`dvc checkout`, or `dvc repro rl_data`."
        ) from error


def _records(path: Path) -> Iterator[QueryRecord]:
    # Bytes: only a line feed ends a record, and half a letter at a cut is the validator's to find.
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        try:
            yield QueryRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise UserError(
                f"{path}, line {number}: {place}: {first['msg']}. The file is damaged: run "
                "`dvc checkout`, or `dvc repro rl_data`."
            ) from error


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
