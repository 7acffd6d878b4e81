"""RL data: a folder with `meta.json`, `records.jsonl` (one query per line) and `schema.json`.

Every pointer consists of example ids. Records are read one at a time. Each is checked against the
schema and its query's pool, and for contradictions: hard and soft scores must agree, and a pointer
must have only one outcome. A truncated file is noticed by its number of records.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lever_plus.config.rl_data import GenMethod
from lever_plus.data.pools import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.files.checking import Row, explained
from lever_plus.files.json_files import json_lines, read_json_as
from lever_plus.files.writing import replacing, write_json, write_json_lines
from lever_plus.vlm.request import VlmIdentity

MEND: Final = "run `dvc checkout`, or `dvc repro rl_data`"
LEAST_LOG_PROB: Final = -1e6
"""Lowest log-probability that is accepted; sums of a few stay finite in single precision."""


def whole(value: Any) -> Any:
    """Return a whole number; raise ValueError for true and 1.0, which `Literal[1]` would accept."""
    if type(value) is not int:
        raise ValueError(f"it should be 0 or 1, not {value!r}")
    return value


Listed = Field(strict=False)
"""Lets a JSON list become a tuple; its items are not converted."""
Share = Annotated[float, Field(ge=0, le=1)]


class Shot(Row):
    """The VLM's answer with the first `shot` demonstrations of a pointer, and its score."""

    shot: Annotated[int, Field(ge=1)]
    answer: str
    vqa_correct: Annotated[Literal[0, 1], BeforeValidator(whole)]
    vqa_acc_score: Share
    fallback: bool = Field(description="an exact match, not VQA accuracy")
    vqa_gt_prob: Share | None = Field(
        default=None, description="probability of the true answer; null: not asked for"
    )
    vqa_rel_score: Share | None = Field(
        default=None, description="nearness to a human answer; null: not asked for"
    )


class Candidate(Row):
    """A pointer with its origin and its scores.

    Lever-Plus scores every shot 1..T; imported data may have the score at shot T alone.
    """

    pointer: Annotated[tuple[int, ...], Listed]
    gen_method: GenMethod
    temperature: float | None = Field(description="of the sampling; null for beam and random")
    step_log_probs: Annotated[tuple[float, ...], Listed] | None = Field(
        description="under the distribution it came from; null where that is not known"
    )
    log_prob: float | None = Field(
        default=None, description="of the whole pointer, where the steps' are not known"
    )
    shots: Annotated[tuple[Shot, ...], Field(min_length=1), Listed]

    @property
    def total_log_prob(self) -> float | None:
        """Return the log-probability of the pointer under its generator; None if unknown."""
        return self.log_prob if self.step_log_probs is None else sum(self.step_log_probs)

    @model_validator(mode="after")
    def _one_of_each_per_pick(self) -> "Candidate":
        numbers = [shot.shot for shot in self.shots]
        if numbers != sorted(set(numbers)) or numbers[-1] != len(self.pointer):
            raise ValueError(
                f"shots are {numbers}, but must rise to {len(self.pointer)}, the pointer's length"
            )
        if self.step_log_probs is not None and len(self.step_log_probs) != len(self.pointer):
            raise ValueError("step_log_probs and pointer differ in length")
        return self

    @model_validator(mode="after")
    def _possible(self) -> "Candidate":
        """Refuse scores that contradict each other, and probabilities above 1."""
        for shot in self.shots:
            if shot.vqa_correct != (shot.vqa_acc_score > 0):
                raise ValueError(
                    f"shot {shot.shot} has vqa_correct {shot.vqa_correct}, but vqa_acc_score "
                    f"{shot.vqa_acc_score}: an answer is correct if its accuracy is above 0"
                )
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, but it must be above 0")
        steps = self.step_log_probs or ()
        if self.log_prob is not None and steps:
            raise ValueError("it has both log_prob and step_log_probs: only one is allowed")
        known = (*steps, self.log_prob or 0.0)
        if max(known) > 0 or min(known) < LEAST_LOG_PROB:
            raise ValueError(f"a log-probability is not between {LEAST_LOG_PROB:,.0f} and 0")
        return self


class QueryRecord(Row):
    """All candidates of one query: a group."""

    query_id: int
    question_id: int
    pool: Annotated[tuple[int, ...], Listed]
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1), Listed]


def check_pointers(record: QueryRecord, where: str, advice: str = MEND) -> None:
    """Refuse a pointer with two different outcomes; equal repeats are allowed.

    Raises:
        UserError: A pointer occurs twice, with different answers or scores.
    """
    known: dict[tuple[int, ...], tuple[Shot, ...]] = {}
    for candidate in record.candidates:
        if known.setdefault(candidate.pointer, candidate.shots) != candidate.shots:
            raise UserError(
                f"{where}: query {record.query_id}: pointer {list(candidate.pointer)} occurs "
                f"twice, with different answers or scores: {advice}."
            )


class Meta(Row):
    """What the RL data were made with."""

    vlm: VlmIdentity
    metric: str
    pool_sha256: str
    feature_space: str
    policy_sha256: str
    records: Annotated[int, Field(ge=1)]


class Records:
    """The records of a file, read and checked one at a time on every iteration.

    Iterating raises UserError for a line that is damaged or contradicts the pools, and at the end
    for a truncated file; the message names file and line. A pointer outside its query's pool raises
    PointerError.
    """

    def __init__(self, path: Path, pools: Pools, count: int) -> None:
        """Keep the file's path, the pools that it belongs to, and how many records it must have."""
        self._path, self._pools, self._count = path, pools, count

    def __len__(self) -> int:
        """Return how many records the file must have."""
        return self._count

    def __iter__(self) -> Iterator[QueryRecord]:
        """Yield every record, in the file's order."""
        seen = set[int]()
        for where, content in json_lines(self._path, MEND):
            record = _record(content, where)
            if record.query_id in seen:
                raise UserError(
                    f"{where}: query {record.query_id} is already in an earlier line: {MEND}."
                )
            seen.add(record.query_id)
            check_pointers(record, where)
            self._check_pool(record, where)
            yield record
        if len(seen) != self._count:
            raise UserError(
                f"{self._path} holds {len(seen)} records, but {self._path.parent / META} says "
                f"{self._count}: the file was cut off, or belongs to other data; {MEND}."
            )

    def _check_pool(self, record: QueryRecord, where: str) -> None:
        query = record.query_id
        try:
            pool = self._pools.of(query)
            self._pools.positions_of(query, [candidate.pointer for candidate in record.candidates])
        except PointerError as error:
            raise PointerError(f"{where}: {error}") from error
        if record.pool != pool:
            raise UserError(
                f"{where}: query {query} has a different pool in the pool file: the data were made "
                "for other pools. Run `dvc repro rl_data`."
            )


META: Final = "meta.json"
RECORDS: Final = "records.jsonl"


def write_rl_data(folder: Path, meta: Meta, records: Iterable[QueryRecord]) -> None:
    """Write the three files; equal data give equal bytes.

    If it fails, the old records and `meta.json` are left as they were.

    Args:
        folder: Where the files go.
        meta: What the data were made with, and how many records there are.
        records: The records; they are written one at a time.

    Raises:
        UserError: The disk is full, or the folder can't be written to.
        ValueError: The number of records is not what `meta` says.
    """
    # Both files are complete before either replaces an old one.
    with replacing(folder / META) as fresh:
        write_json(fresh, meta.model_dump())
        write_json_lines(folder / RECORDS, _rows(records, meta.records))
    write_json(folder / "schema.json", QueryRecord.model_json_schema())


def _rows(records: Iterable[QueryRecord], promised: int) -> Iterator[dict[str, Any]]:
    count = 0
    for record in records:
        count += 1
        # Scores that were not asked for are left out: they would fill most of each line.
        yield record.model_dump(exclude_defaults=True)
    if count != promised:
        raise ValueError(f"there are {count} records, but meta says {promised}")


def read_rl_data(folder: Path, pools: Pools) -> tuple[Meta, Records]:
    """Return what RL data were made with, and their records, which are read when iterated over.

    Raises:
        UserError: A file is missing, `meta.json` is damaged, or the data were made for other pools.
            See `Records` for errors in the records.
    """
    meta_path, path = folder / META, folder / RECORDS
    if not meta_path.is_file() or not path.is_file():
        raise UserError(f"{folder} holds no RL data: run `dvc repro rl_data`.")
    meta = read_json_as(Meta, meta_path, MEND)
    if meta.pool_sha256 != pools.sha256:
        raise UserError(
            f"{meta_path}: the RL data were made for pools {meta.pool_sha256[:12]}, but the pool "
            f"file is {pools.sha256[:12]}: run `dvc repro rl_data`."
        )
    return meta, Records(path, pools, meta.records)


def _record(content: Any, where: str) -> QueryRecord:
    try:
        return QueryRecord.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {explained(error.errors()[0])}: {MEND}.") from error
