"""RL data from and to the JSON of the system that this project grew out of.

Its files map a query to `pointer_candidates`; six variants are told apart by their keys:
    A  pointer, gen_method, vqa_pred_answer, vqa_correct, vqa_acc_score
    B  A and vqa_eval_mode: file, vqaEval, fallback or error
    C  `_meta` beside the queries; candidates with pointer_pos, vqa_gt_prob, eval_failed
    D  candidate_pool_ids a query; candidates with pointer_global
    E  gen_method aug_diverse, or vqa_eval_mode train or val
    F  pointer, vqa_pred_answer and vqa_acc_score alone
What `pointer` counts (ids, or positions in the query's pool) differs from file to file and cannot
be seen from it, so it must be said. Scores exist for the whole pointer only.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import ValidationError

from lever_plus.config.rl_data import GenMethod
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.training.rl_data.records import Candidate, Meta, QueryRecord, Shot
from lever_plus.vlm.request import VlmIdentity

IndexSpace = Literal["global", "pool"]
VARIANTS: Final = {
    "A": "pointers are positions in the candidate list, which are ids where that list was 0..N-1",
    "B": "as A; some scores may be string matches (vqa_eval_mode: fallback)",
    "C": "pointer is meant to be global and pointer_pos the position",
    "D": "pointer is meant to be the position in candidate_pool_ids, pointer_global the id",
    "E": "augmented; positions and ids are mixed between files",
    "F": "balanced; pointer is meant to be a position, and vqa_correct is missing",
}
METHODS: Final[Mapping[str, GenMethod]] = {
    "beam": "beam",
    "sample": "sample",
    "stochastic_beam": "stochastic_beam",
    "random": "random",
    "retrieval": "retrieval",
    "aug_diverse": "augmented",
}
UNKNOWN: Final = "unknown (imported)"


class Imported(NamedTuple):
    """What an import yields: the RL data, the variant, and candidates that had no real score."""

    meta: Meta
    records: list[QueryRecord]
    variant: str
    skipped: int


def variant_of(content: Mapping[str, Any]) -> str:
    """Return the letter of a file's variant; UserError if it is none of them."""
    queries = {key: value for key, value in content.items() if key != "_meta"}
    try:
        groups = [group["pointer_candidates"] for group in queries.values()]
        keys = {key for group in groups for candidate in group for key in candidate}
        methods = {candidate.get("gen_method") for group in groups for candidate in group}
        modes = {candidate.get("vqa_eval_mode") for group in groups for candidate in group}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            "the file does not map queries to `pointer_candidates`, so it is none of the six known "
            f"variants of RL JSON ({error!r})."
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
        index_space: What `pointer` counts: "global" (example ids, as in the pools) or "pool"
            (positions in the query's pool).
        pools: Pools that hold every candidate.

    Raises:
        UserError: The file is none of the known variants, `index_space` is not stated, or the
            pointers contradict it.
        PointerError: A pointer leaves its query's pool.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable JSON file: {error}.") from error
    variant = variant_of(content)
    if index_space is None:
        raise UserError(
            f"{path} is variant {variant}: {VARIANTS[variant]}. The file itself does not say what "
            "its pointers count, and guessing would score other demonstrations: state "
            "--index-space global (example ids) or --index-space pool (positions in the pool)."
        )
    origin = content.pop("_meta", {})
    records, skipped = [], 0
    for key, group in content.items():
        official = [c for c in group["pointer_candidates"] if _is_official(c)]
        skipped += len(group["pointer_candidates"]) - len(official)
        if not official:
            continue
        try:
            records.append(_record(int(key), group, official, index_space, pools))
        except UserError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, query {key}: a candidate is damaged ({_reason(error)}). Mend it, or "
                "take that query out."
            ) from error
    if not records:
        raise UserError(f"{path} has no candidate with an official score: nothing to import.")
    vlm = VlmIdentity(
        model=str(origin.get("vqa_model", UNKNOWN)),
        revision=UNKNOWN,
        dtype=UNKNOWN,
        prompt_hash=UNKNOWN,
        generation=json.dumps(origin.get("task_gen_args", UNKNOWN), sort_keys=True),
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


def write_exchange(path: Path, records: Sequence[QueryRecord]) -> None:
    """Write RL data as {"<query id>": {"pointer_candidates": [...]}}; pointers are example ids."""
    content = {
        str(record.query_id): {"pointer_candidates": [_exported(c) for c in record.candidates]}
        for record in records
    }
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _is_official(candidate: Mapping[str, Any]) -> bool:
    """Whether a candidate was scored by the metric, not by string matching or not at all."""
    failed = candidate.get("eval_failed", False)
    return not failed and candidate.get("vqa_eval_mode") not in {"fallback", "error"}


def _record(
    query: int,
    group: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    index_space: IndexSpace,
    pools: Pools,
) -> QueryRecord:
    pool = pools.of(query)
    stated = group.get("candidate_pool_ids")
    if stated is not None and tuple(stated) != pool:
        raise UserError(
            f"query {query}: candidate_pool_ids of the file are not its pool in the pool file: "
            "use the pools that the data were made with."
        )
    return QueryRecord(
        query_id=query,
        question_id=int(group.get("query", {}).get("question_id", query)),
        pool=pool,
        candidates=tuple(_candidate(query, c, pool, index_space, pools) for c in candidates),
    )


def _candidate(
    query: int,
    candidate: Mapping[str, Any],
    pool: Sequence[int],
    index_space: IndexSpace,
    pools: Pools,
) -> Candidate:
    pointer = [int(i) for i in candidate["pointer"]]
    if index_space == "pool":
        outside = [i for i in pointer if not 0 <= i < len(pool)]
        if outside:
            raise UserError(
                f"query {query}: pointer {pointer} names position {outside[0]} of a pool of "
                f"{len(pool)}: these are no positions. Try --index-space global."
            )
        pointer = [pool[i] for i in pointer]
    pools.positions(query, pointer)
    both = candidate.get("pointer_global")
    if both is not None and [int(i) for i in both] != pointer:
        raise UserError(
            f"query {query}: pointer_global {both} is not what pointer means as --index-space "
            f"{index_space}, which gives {pointer}: state the other index space."
        )
    score = float(candidate["vqa_acc_score"])
    shot = Shot(
        shot=len(pointer),
        answer=str(candidate.get("vqa_pred_answer", "")),
        vqa_correct=1 if candidate.get("vqa_correct", score > 0) else 0,
        vqa_acc_score=score,
        fallback=False,
        vqa_gt_prob=candidate.get("vqa_gt_prob"),
        vqa_rel_score=candidate.get("vqa_rel_score"),
    )
    known = [candidate.get(key) for key in ("beam_score", "logprob_score")]
    return Candidate(
        pointer=tuple(pointer),
        gen_method=METHODS.get(candidate.get("gen_method", ""), "augmented"),
        temperature=candidate.get("temperature"),
        step_log_probs=None,
        log_prob=next((value for value in known if value is not None), None),
        shots=(shot,),
    )


def _exported(candidate: Candidate) -> dict[str, Any]:
    last = candidate.shots[-1]
    return {
        "pointer": list(candidate.pointer),
        "gen_method": candidate.gen_method,
        "temperature": candidate.temperature,
        "logprob_score": candidate.total_log_prob,
        "vqa_pred_answer": last.answer,
        "vqa_correct": last.vqa_correct,
        "vqa_acc_score": last.vqa_acc_score,
        "vqa_eval_mode": "fallback" if last.fallback else "vqaEval",
    }
