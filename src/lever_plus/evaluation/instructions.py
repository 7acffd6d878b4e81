"""A baseline without demonstrations: the VLM with the instruction that is best on dev."""

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
    """The VLM with the best instruction, and how it was found.

    rows: for each instruction that was tried: `instruction`, `accuracy`, `ci95`, `n`, and whether
    it was `chosen`; requests: number of requests to the VLM that the choice took.
    """

    vlm: StoredVlm
    rows: list[Row]
    requests: int


def best_instruction(
    vlm: StoredVlm, texts: Sequence[str], examples: Sequence[Example], resamples: int
) -> BestInstruction:
    """Return the VLM with the instruction that is best without demonstrations, the first if equal.

    Args:
        vlm: The VLM, with any instruction.
        texts: One or more instructions, all different.
        examples: Questions of dev with their human answers.
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: A text cannot be in a prompt, or this VLM accepts no other instruction.
    """
    asked = [Asked((), example) for example in examples]
    images = np.array([example.image_id for example in examples], dtype=np.int64)
    rows: list[Row] = []
    requests = 0
    for text in texts:
        scorer = Scorer(vlm.instructed(text))  # one at a time, as each keeps embeddings in memory
        scores = [score.vqa_acc_score for score in scorer.score(asked, "instruction, on dev")]
        found = accuracy(Scored(np.array([scores]), (0,), trained=False), images, resamples)
        shown = {key: found[key] for key in ("accuracy", "ci95", "n")}
        rows.append({"instruction": text, **shown, "chosen": False})
        requests += scorer.requests
    best = max(rows, key=lambda row: row["accuracy"])
    best["chosen"] = True
    return BestInstruction(vlm.instructed(best["instruction"]), rows, requests)


class _Tried(Part):
    """An instruction that was tried."""

    instruction: str
    accuracy: Share
    ci95: tuple[Share, Share]
    n: Count
    chosen: bool


def tried_in(diagnostics: Mapping[str, Any], path: Path) -> list[Row]:
    """Return the rows of `BestInstruction` in the diagnostics; none if no instruction was tried.

    Args:
        diagnostics: The content of metrics/diagnostics.json.
        path: Path of the file, for errors.

    Raises:
        UserError: The rows are damaged.
    """
    rows: list[Row] = diagnostics.get("instructions", [])
    checked(tuple[_Tried, ...], rows, str(path), ADVICE)
    return rows
