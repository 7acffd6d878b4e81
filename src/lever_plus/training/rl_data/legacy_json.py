"""Import of RL data from the older system that this project grew out of; see also `legacy_export`.

Its JSON files map each query to `pointer_candidates`. Six variants are recognised by their keys:
    A  pointer, gen_method, vqa_pred_answer, vqa_correct, vqa_acc_score
    B  as A, with vqa_eval_mode: file, vqaEval, fallback or error
    C  `_meta` beside the queries; candidates with pointer_pos, vqa_gt_prob, eval_failed
    D  queries with candidate_pool_ids; candidates with pointer_global
    E  gen_method aug_diverse, or vqa_eval_mode train or val
    F  only pointer, vqa_pred_answer and vqa_acc_score
Whether `pointer` holds ids or positions in the query's pool differs from file to file. The user
must say which, unless the file has both: the pool of every query, and `pointer_global` for every
candidate. Scores exist for whole pointers only, except in this project's own exports, which have
`shots`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from lever_plus.data.pools import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.files.checking import explained
from lever_plus.files.json_files import parse_json
from lever_plus.files.reading import read_bytes
from lever_plus.training.rl_data.legacy_parts import (
    METHODS,
    UNKNOWN,
    Group,
    Judged,
    Origin,
    Scored,
)
from lever_plus.training.rl_data.records import Candidate, Meta, QueryRecord, Shot, check_pointers
from lever_plus.vlm.request import VlmIdentity

IndexSpace = Literal["global", "pool"]
VARIANTS: Final = {
    "A": "pointers are positions in the candidate list, which are also ids if that list was 0..N-1",
    "B": "as A; some scores may be string matches (vqa_eval_mode: fallback)",
    "C": "pointer should hold ids, and pointer_pos positions",
    "D": "pointer should hold positions in candidate_pool_ids, and pointer_global ids",
    "E": "augmented data; some files hold positions, others ids",
    "F": "balanced data; pointer should hold positions, and vqa_correct is missing",
}
MEND: Final = "repair it, or remove it"
LARGEST: Final = 4 * 2**30
"""Largest file in bytes: the whole file is one JSON value, so it is read into memory at once."""
QUERY_ID: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
Part = TypeVar("Part", bound=BaseModel)


class Imported(NamedTuple):
    """The imported RL data, the file's variant, and how many candidates lacked a valid score."""

    meta: Meta
    records: list[QueryRecord]
    variant: str
    skipped: int


def variant_of(content: Mapping[str, Any]) -> str:
    """Return the letter of a file's variant; raise UserError if it is none of them."""
    queries = {key: value for key, value in content.items() if key != "_meta"}
    try:
        groups = [group["pointer_candidates"] for group in queries.values()]
        keys = {key for group in groups for candidate in group for key in candidate}
        methods = {candidate.get("gen_method") for group in groups for candidate in group}
        modes = {candidate.get("vqa_eval_mode") for group in groups for candidate in group}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            "the file does not map queries to `pointer_candidates`, so it is none of the six "
            f"variants of RL JSON that can be imported ({error!r})."
        ) from error
    if "aug_diverse" in methods or modes & {"train", "val"}:
        return "E"
    if "pointer_global" in keys:
        return "D"
    if "_meta" in content or "pointer_pos" in keys:
        return "C"
    if "vqa_eval_mode" in keys:
        return "B"
    return "A" if "vqa_correct" in keys else "F"


def read_exchange(path: Path, index_space: IndexSpace | None, pools: Pools) -> Imported:
    """Read RL JSON of the older system.

    Args:
        path: The file.
        index_space: What `pointer` holds: "global" (example ids, as in the pools) or "pool"
            (positions in the query's pool). None is enough if the file has both.
        pools: The pool of every query; they must hold every candidate.

    Raises:
        UserError: The file is none of the known variants, a part of it is damaged (the message
            names the part), an `index_space` is needed, or the pointers contradict it.
        PointerError: A pointer names an example outside its query's pool.
    """
    advice = "name the file of RL JSON that the older system wrote"
    content = parse_json(read_bytes(path, advice, limit=LARGEST), str(path), advice)
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object: {advice}.")
    try:
        variant = variant_of(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if index_space is None and not _has_both(content):
        raise UserError(
            f"{path} is variant {variant}: {VARIANTS[variant]}. The file itself does not say "
            "whether its pointers are ids or positions, and a wrong guess would train on the wrong "
            "demonstrations: add --index-space global (example ids) or --index-space pool "
            "(positions in the pool)."
        )
    origin = _checked(Origin, content.pop("_meta", {}), f"{path}: _meta")
    records, skipped = [], 0
    for key in list(content):
        # Popped, so that each group can be freed: a file of some gigabytes is not held twice.
        group = _checked(Group, content.pop(key), f"{path}: {key}")
        record, left_out = _record(f"{path}: {key}", key, group, index_space or "pool", pools)
        skipped += left_out
        if record is not None:
            records.append(record)
    if not records:
        raise UserError(f"{path} has no candidate with an official score: nothing to import.")
    vlm = VlmIdentity(
        model=origin.vqa_model,
        revision=UNKNOWN,
        dtype=UNKNOWN,
        prompt_hash=UNKNOWN,
        generation=json.dumps(origin.task_gen_args, sort_keys=True),
    )
    meta = Meta(
        vlm=vlm,
        metric="VQA accuracy as stored in the imported file",
        pool_sha256=pools.sha256,
        feature_space=UNKNOWN,
        policy_sha256=UNKNOWN,
        records=len(records),
    )
    return Imported(meta, records, variant, skipped)


def _has_both(content: Mapping[str, Any]) -> bool:
    """Return whether the file has pools and ids for all pointers, to check positions against."""
    groups = [group for key, group in content.items() if key != "_meta"]
    return all(
        group.get("candidate_pool_ids") is not None
        and all(c.get("pointer_global") is not None for c in group["pointer_candidates"])
        for group in groups
    )


def _record(
    where: str, key: str, group: Group, index_space: IndexSpace, pools: Pools
) -> tuple[QueryRecord | None, int]:
    """Return a query's record, and how many candidates lack an official score; None if all do."""
    if not QUERY_ID.fullmatch(key):
        raise UserError(f"{where} is not a query id (a whole number): {MEND}.")
    query = int(key)
    candidates, skipped = [], 0
    try:
        pool = pools.of(query)
        _check_pool(where, query, group, pool)
        for number, candidate in enumerate(group.pointer_candidates):
            place = f"{where}.pointer_candidates.{number}"
            if _checked(Judged, candidate, place).counts:
                scored = _checked(Scored, candidate, place)
                candidates.append(_candidate(place, query, scored, pool, index_space, pools))
            else:
                skipped += 1
    except PointerError as error:
        raise PointerError(f"{where}: {error}") from error
    asked = group.query.question_id
    if not candidates:
        return None, skipped
    record = _made(
        QueryRecord,
        where,
        query_id=query,
        question_id=query if asked is None else asked,
        pool=pool,
        candidates=tuple(candidates),
    )
    check_pointers(record, where, MEND)
    return record, skipped


def _check_pool(where: str, query: int, group: Group, pool: tuple[int, ...]) -> None:
    stated = group.candidate_pool_ids
    if stated is not None and stated != pool:
        raise UserError(
            f"{where}: query {query}: candidate_pool_ids differ from the query's pool in the pool "
            "file: use the pools that the data were made with."
        )


def _candidate(
    where: str,
    query: int,
    candidate: Scored,
    pool: Sequence[int],
    index_space: IndexSpace,
    pools: Pools,
) -> Candidate:
    pointer = candidate.pointer
    if index_space == "pool":
        outside = [i for i in pointer if not 0 <= i < len(pool)]
        if outside:
            raise UserError(
                f"{where}: query {query}: pointer {list(pointer)} holds {outside[0]}, but the pool "
                f"has only {len(pool)} examples: these are not positions. Try --index-space global."
            )
        pointer = tuple(pool[i] for i in pointer)
    positions = tuple(pools.positions(query, pointer))
    for key, meant in (("pointer_global", pointer), ("pointer_pos", positions)):
        both = getattr(candidate, key)
        if both is not None and both != meant:
            raise UserError(
                f"{where}: query {query}: with --index-space {index_space}, pointer means "
                f"{list(meant)}, but {key} is {list(both)}: use the other --index-space, or the "
                "pools that the data were made with."
            )
    return _made(
        Candidate,
        where,
        pointer=pointer,
        gen_method=METHODS[candidate.gen_method] if candidate.gen_method else "augmented",
        temperature=candidate.temperature,
        step_log_probs=candidate.step_log_probs,
        log_prob=_log_prob(where, candidate),
        shots=_shots(where, candidate),
    )


def _log_prob(where: str, candidate: Scored) -> float | None:
    """Return the log-probability of the whole pointer; None if those of its steps are known."""
    known = (candidate.beam_score, candidate.logprob_score)
    whole = next((value for value in known if value is not None), None)
    steps = candidate.step_log_probs
    if steps is None:
        return whole
    if whole is not None and not math.isclose(whole, sum(steps), abs_tol=1e-9):
        raise UserError(
            f"{where}: its log-probability is {whole}, but those of its steps sum to "
            f"{sum(steps)}: {MEND}."
        )
    return None


def _shots(where: str, candidate: Scored) -> tuple[Shot, ...]:
    """Return the outcome at every shot that has one; the last is that of the whole pointer."""
    score = candidate.vqa_acc_score
    last = _made(
        Shot,
        where,
        shot=len(candidate.pointer),
        answer=candidate.vqa_pred_answer,
        vqa_correct=int(score > 0) if candidate.vqa_correct is None else candidate.vqa_correct,
        vqa_acc_score=score,
        fallback=candidate.vqa_eval_mode == "fallback",
        vqa_gt_prob=candidate.vqa_gt_prob,
        vqa_rel_score=candidate.vqa_rel_score,
    )
    shots = (last,) if candidate.shots is None else candidate.shots
    if shots[-1] != last:
        raise UserError(
            f"{where}: its last shot does not have the candidate's own answer and scores: {MEND}."
        )
    return shots


def _checked(kind: type[Part], content: Any, where: str) -> Part:
    """Return a part of the file as a model; raise UserError with its place if it is damaged."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {explained(error.errors()[0])}: {MEND}.") from error


def _made(kind: type[Part], where: str, **fields: Any) -> Part:
    return _checked(kind, fields, where)
