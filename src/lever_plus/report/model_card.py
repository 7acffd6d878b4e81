"""A model card for every trained policy, written from the files of its run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lever_plus.config.names import SFT
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import Methods
from lever_plus.evaluation.scored import Table, accuracy, corrected, difference
from lever_plus.files.tensors import read_header
from lever_plus.policy.checkpoint import CheckpointConfig, read_config
from lever_plus.report.findings import clusters
from lever_plus.report.tables import markdown, percent, points
from lever_plus.tracking.history import Row
from lever_plus.training.rl_data.records import Meta

SHARED = (
    "- It is meant for research on how demonstrations are chosen, and for choosing them for "
    "the VLM named above.",
    "- It was trained on the pools named above, with features of the encoder named above. It can "
    "choose from other pools, but the accuracies will differ; another encoder is refused.",
    "- It was trained for one frozen VLM and one prompt. With another VLM or another prompt, the "
    "accuracies above do not hold.",
    "- It answers no question itself, and what it chooses may lead the VLM to a wrong answer.",
)
EMBEDDED = (
    "- The questions are those of the embedded data set, and the VLM is a tiny one that was "
    "trained for them: these numbers say nothing about large VLMs."
)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained policy and what is known about its training.

    Attributes:
        stage: The stage of the pipeline that trained it.
        method: Its name.
        seed: Training seed.
        checkpoint: The policy's file.
        history: The rows of its training.
        made_with: What the RL data of its seed were made with; all stages share VLM and metric.
        embedded: Whether the data set is the embedded one.
        command: What trains it again.
    """

    stage: str
    method: str
    seed: int
    checkpoint: Path
    history: Sequence[Row]
    made_with: Meta
    embedded: bool
    command: str

    @property
    def name(self) -> str:
        """Return the card's name."""
        return f"{self.stage}-{self.method}-seed{self.seed}"


def model_card(policy: Trained, scores: pd.DataFrame, methods: Methods, resamples: int) -> str:
    """Return the card of one policy, Markdown.

    Args:
        policy: The policy.
        scores: The table of `evaluate`.
        methods: What the methods are.
        resamples: Bootstrap resamples.

    Raises:
        UserError: The checkpoint is missing or damaged.
    """
    parameters = count_parameters(policy.checkpoint)
    found = read_config(policy.checkpoint.parent)
    config = found.architecture.as_dict()
    limits = [*SHARED, *([EMBEDDED] if policy.embedded else [])]
    sections = {
        "What it is": (
            f"A pointer policy that picks {config['shots']} in-context demonstrations, one after "
            f"the other, for a frozen vision-language model. Trained by "
            f"{methods[policy.method].label}."
        ),
        "Architecture": _items({"parameters": f"{parameters:,}", **config}),
        "Trained on": _items(_facts(policy, found)),
        "Test accuracy": _results(policy, scores, methods, resamples),
        "Intended use and limits": "\n".join(limits),
        "Load it": _loading(policy.checkpoint),
        "Make it again": f"```\n{policy.command}\n```",
    }
    body = "".join(f"\n## {title}\n\n{text.rstrip()}\n" for title, text in sections.items())
    return f"# {policy.stage}/{policy.method}, seed {policy.seed}\n{body}"


def count_parameters(path: Path) -> int:
    """Return the number of weights in a file of weights, without reading the weights.

    Raises:
        UserError: The file is missing or damaged.
    """
    return read_header(path, "run the stage that trains it again (`dvc repro`)").numbers


def best_row(history: Sequence[Row], name: str, command: str) -> tuple[int, float]:
    """Return epoch and dev reward of the policy that was kept: the first with the best reward.

    Args:
        history: The rows of its training.
        name: The policy's name, for the error.
        command: What trains it again.

    Raises:
        UserError: No row has a dev reward.
    """
    rows = [row for row in history if "dev_reward" in row]
    if not rows:
        raise UserError(f"the training history of {name} has no dev_reward: run `{command}`.")
    best = max(rows, key=lambda row: float(row["dev_reward"]))
    return int(best["epoch"]), float(best["dev_reward"])


def _facts(policy: Trained, config: CheckpointConfig) -> dict[str, Any]:
    meta = policy.made_with
    epoch, reward = best_row(policy.history, policy.name, policy.command)
    facts = {
        "pools, sha256": config.pool_sha256,
        "encoder, sha256": config.encoder.sha256,
        "feature space, sha256": config.feature_space,
        "VLM": f"{meta.vlm['model']}, revision {meta.vlm['revision']}, {meta.vlm['dtype']}",
        "prompt, hash": meta.vlm["prompt_hash"],
        "generation": meta.vlm["generation"],
        "metric": meta.metric,
    }
    if policy.stage != SFT:
        facts["RL data"] = f"{meta.records} queries"
        facts["policy that proposed the RL data, sha256"] = meta.policy_sha256
    facts["training seed"] = str(policy.seed)
    facts["best epoch"] = f"{epoch} (chosen on dev: reward {reward:.4f})"
    return facts


def _results(policy: Trained, scores: pd.DataFrame, methods: Methods, resamples: int) -> str:
    """Return the accuracies of this training seed, and its differences from the references."""
    of_method = scores[scores["method"] == policy.method]
    part = of_method[of_method["seed"] == policy.seed]
    if part.empty:
        return "This policy was not evaluated."
    # The card is about this one policy: how trainings differ is no part of its uncertainty.
    table = Table(part, trained=False)
    rows, images = [], clusters(scores, table.questions)
    shots: list[int | str] = [*table.shots, "mean"]
    for shot in shots:
        found = accuracy(table.at(shot), images, resamples)
        rows.append([str(shot), percent(found), str(found["n"])])
    header = ["shots", "accuracy [95 %]", "questions"]
    told = "VQA accuracy x 100 on test questions; the intervals cover questions, not trainings.\n\n"
    told += markdown(header, rows)
    compared: dict[str, dict[str, Any]] = {}
    for versus, other in _references(policy, scores, methods):
        theirs = other.at("mean").of(other.places(table.questions))
        compared[versus] = difference(table.at("mean"), theirs, images, resamples)
    for versus, row in zip(compared, corrected(list(compared.values())), strict=True):
        told += f"\nMean over shots minus {versus}, paired by question: {points(row)}.\n"
    return told


def _references(
    policy: Trained, scores: pd.DataFrame, methods: Methods
) -> Iterator[tuple[str, Table]]:
    """Yield the SFT and RCE policies of the same seed, except the policy itself."""
    for method in methods.references:
        part = scores[(scores["method"] == method) & (scores["seed"] == policy.seed)]
        if method != policy.method and not part.empty:
            yield f"{method}, seed {policy.seed}", Table(part, trained=False)


def _items(facts: dict[str, Any]) -> str:
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def _loading(checkpoint: Path) -> str:
    return f"""```python
from lever_plus import Query, load_selector, read_pool

selector = load_selector("{checkpoint.parent.as_posix()}")
chosen = selector.select(Query("photo.jpg", "What is it?"), read_pool("pool.jsonl"), 2)
```"""
