"""Export of RL data to the JSON of the older system that this project grew out of (variant D).

Each query has its pool as `candidate_pool_ids`. Each candidate has `pointer` (positions in that
pool), `pointer_global` (example ids), and the scores of its last shot under the names that the
older system reads. Two more keys, which that system ignores, make sure that an export can be
imported again without loss: `shots` has the outcome at every shot, and `step_log_probs` the
log-probs of the picks.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lever_plus.errors import UserError
from lever_plus.files.writing import replacing
from lever_plus.training.rl_data.records import Candidate, QueryRecord


def write_exchange(path: Path, records: Iterable[QueryRecord], shot: int | None = None) -> int:
    """Write RL data as {"<query id>": {"pointer_candidates": [...]}}; return how many queries.

    Records are written one at a time; the file appears only when it is complete.

    Args:
        path: The file.
        records: The RL data.
        shot: Length to which every pointer is cut, with the scores at that shot: the older system
            trains on pointers of two. None writes whole pointers.

    Raises:
        UserError: A record is damaged (see `Records`), a candidate has no score at `shot`, or the
            file can't be written.
    """
    count = 0
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            whole = record if shot is None else _cut(record, shot)
            text = json.dumps(
                {str(record.query_id): _group(whole)},
                ensure_ascii=False,
                indent=1,
                sort_keys=True,
                allow_nan=False,
            )
            file.write((",\n" if count else "{\n") + text.removeprefix("{\n").removesuffix("\n}"))
            count += 1
        file.write("\n}\n" if count else "{}\n")
    return count


def _cut(record: QueryRecord, shot: int) -> QueryRecord:
    """Return a record with pointers cut to `shot` picks; some may then be equal."""
    candidates = []
    for candidate in record.candidates:
        shots = tuple(each for each in candidate.shots if each.shot <= shot)
        if not shots or shots[-1].shot != shot:
            raise UserError(
                f"query {record.query_id}: pointer {list(candidate.pointer)} has no score at shot "
                f"{shot}, only at {', '.join(str(each.shot) for each in candidate.shots)}: name "
                "one of those as --shot."
            )
        steps, whole = candidate.step_log_probs, len(candidate.pointer) == shot
        changed = {
            "pointer": candidate.pointer[:shot],
            "step_log_probs": steps and steps[:shot],
            "log_prob": candidate.log_prob if whole else None,
            "shots": shots,
        }
        candidates.append(candidate.model_copy(update=changed))
    return record.model_copy(update={"candidates": tuple(candidates)})


def _group(record: QueryRecord) -> dict[str, Any]:
    """Return what the file says about one query."""
    place = {example: position for position, example in enumerate(record.pool)}
    asked = {"query_id": record.query_id, "question_id": record.question_id}
    return {
        "query": asked,
        "candidate_pool_ids": list(record.pool),
        "pointer_candidates": [_exported(candidate, place) for candidate in record.candidates],
    }


def _exported(candidate: Candidate, place: dict[int, int]) -> dict[str, Any]:
    last = candidate.shots[-1]
    optional = {
        "vqa_gt_prob": last.vqa_gt_prob,
        "vqa_rel_score": last.vqa_rel_score,
        "step_log_probs": candidate.step_log_probs,
    }
    return {
        **{name: value for name, value in optional.items() if value is not None},
        "pointer": [place[example] for example in candidate.pointer],
        "pointer_global": list(candidate.pointer),
        "gen_method": candidate.gen_method,
        "temperature": candidate.temperature,
        "logprob_score": candidate.total_log_prob,
        "vqa_pred_answer": last.answer,
        "vqa_correct": last.vqa_correct,
        "vqa_acc_score": last.vqa_acc_score,
        "vqa_eval_mode": "fallback" if last.fallback else "vqaEval",
        "shots": [shot.model_dump(exclude_defaults=True) for shot in candidate.shots],
    }
