"""The rival without demonstrations: the instruction with which the VLM answers dev best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lever_plus.data.examples import Example
from lever_plus.evaluation.scored import Row, Scored, accuracy
from lever_plus.evaluation.stored import ADVICE, Count, Part, Share
from lever_plus.files.checking import checked
from lever_plus.vlm.scorer import Asked, Scorer
from lever_plus.vlm.store.cached import StoredVlm


class BestInstruction(NamedTuple):
    """The VLM with the instruction that was best, and how it was found.

    rows: Of every text that was tried: `instruction`, `accuracy`, `ci95`, `n`, and whether it was
    `chosen`; requests: what the VLM was asked to choose it.
    """

    vlm: StoredVlm
    rows: list[Row]
    requests: int


def best_instruction(
    vlm: StoredVlm, texts: Sequence[str], examples: Sequence[Example], resamples: int
) -> BestInstruction:
    """Return the VLM with the text that is best without demonstrations; ties go to the first.

    Args:
        vlm: The VLM, with any instruction.
        texts: Instructions, at least one, none twice.
        examples: Questions with their human answers, of dev.
        resamples: Bootstrap resamples.

    Raises:
        UserError: A text cannot be in a prompt, or this VLM takes no other instruction.
    """
    asked = [Asked((), example) for example in examples]
    images = np.array([example.image_id for example in examples], dtype=np.int64)
    rows: list[Row] = []
    requests = 0
    for text in texts:
        scorer = Scorer(vlm.instructed(text))  # one at a time: each holds embeddings in memory
        scores = [score.vqa_acc_score for score in scorer.score(asked, "instruction, on dev")]
        found = accuracy(Scored(np.array([scores]), (0,), trained=False), images, resamples)
        shown = {key: found[key] for key in ("accuracy", "ci95", "n")}
        rows.append({"instruction": text, **shown, "chosen": False})
        requests += scorer.requests
    best = max(rows, key=lambda row: row["accuracy"])
    best["chosen"] = True
    return BestInstruction(vlm.instructed(best["instruction"]), rows, requests)


class _Tried(Part):
    """A text that was tried."""

    instruction: str
    accuracy: Share
    ci95: tuple[Share, Share]
    n: Count
    chosen: bool


def tried_in(diagnostics: Mapping[str, Any], path: Path) -> list[Row]:
    """Return `BestInstruction.rows` as the diagnostics hold them; none where none was tried.

    Args:
        diagnostics: metrics/diagnostics.json.
        path: Of the file, for errors.

    Raises:
        UserError: They are damaged.
    """
    rows: list[Row] = diagnostics.get("instructions", [])
    checked(tuple[_Tried, ...], rows, str(path), ADVICE)
    return rows
