"""Time and memory of the whole report stage, for a made-up project with many test questions.

The project has everything that the stage reads: examples with photographs of an ordinary size,
pools, RL data, the score table with its summary, histories and checkpoints. Nothing is trained, and
no VLM is used.
"""

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from time import process_time
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image

from lever_plus.bench import growth
from lever_plus.bench.memory import peak_rss_mb
from lever_plus.config.names import RCE, SFT, SFT_BEAMS
from lever_plus.config.offline import TauSchedule
from lever_plus.config.reward import RewardParams
from lever_plus.data.examples import Example, write_examples
from lever_plus.evaluation.diagnostics import copy_rates
from lever_plus.evaluation.methods import ZERO_SHOT, Methods, methods_of
from lever_plus.evaluation.summary import summarise
from lever_plus.features.whitening import PARTS, FeatureSpace, Whitening
from lever_plus.files.writing import write_text
from lever_plus.pipeline import report
from lever_plus.pipeline.outputs import write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.runs import training_runs
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import PolicyConfig
from lever_plus.vlm.request import VlmIdentity

RECORDS, EPOCHS, BEST_OF = 1_600, 8, 16
PHOTOGRAPHS, SIZE = 64, (640, 480)
VLM: Final = VlmIdentity(
    model="bench", revision="bench", dtype="bench", prompt_hash="bench", generation="bench"
)
SETTINGS: Final = report.Settings(
    training_seeds=list(range(1, growth.SEEDS + 1)),
    schedules={name: TauSchedule(start=0.4, end=0.1) for name in (RCE, f"{RCE}-seed")},
    stop=None,
    targets={SFT: "scores", SFT_BEAMS: "beams"},
    reward=RewardParams(soft=1.0, clip=1.0, shot_weights=[1.0 / growth.SHOTS] * growth.SHOTS),
    resamples=growth.RESAMPLES,
    source="vqa_files",
)


def run(folder: Path, questions: int, records: int = RECORDS) -> growth.Figures:
    """Write a project and its report; measure the report.

    Args:
        folder: Where the project goes.
        questions: Number of test questions.
        records: Number of queries in the RL data, plus one for the dev question.

    Returns:
        Seconds of processor time (so that other work on the machine does not count), peak memory in
        MB, size of the page in kB, and counts.
    """
    paths = Paths(folder, moved={"pool": folder / "made"})
    scores = _make(paths, questions, records)
    before, start = peak_rss_mb(), process_time()
    with redirect_stdout(StringIO()):
        report.run(SETTINGS, paths)
    return {
        "questions": questions,
        "scores": scores,
        "cpu_seconds": round(process_time() - start, 2),
        "page_kb": (paths.report / "index.html").stat().st_size // 1000,
        "peak_rss_mb": peak_rss_mb(),
        "peak_before_mb": before,
    }


def _make(paths: Paths, questions: int, records: int) -> int:
    """Write everything that the report reads; return the number of scores."""
    train = max(questions, growth.POOL)
    first = train + records  # id of the first test question; RL queries come before it
    photographs = _photographs(paths.images)
    examples = {
        i: Example(
            photographs[i % PHOTOGRAPHS], f"What is {i}?", "yes", ("yes",) * 10, i, i, f"{i:064x}"
        )
        for i in range(first + questions)
    }
    test = range(first, first + questions)
    splits = {"train": range(first - 1), "dev": range(first - 1, first), "test": test}
    for split, ids in splits.items():
        write_examples(paths.prepare / f"{split}.jsonl", [examples[i] for i in ids], paths.root)
    made = paths.pools.parent
    growth.make_rl_data(made, records - 1, train, test)
    for seed in SETTINGS.training_seeds:
        shutil.copytree(made, paths.rl_data(seed))
    registry = methods_of(
        SETTINGS.schedules, SETTINGS.targets, BEST_OF, stops=False, instructed=False
    )
    scores = growth.score_table(questions, [m.name for m in registry if m.name != ZERO_SHOT])
    scores[["query_id", "image_id"]] += first
    paths.scores.parent.mkdir(parents=True)
    scores.to_parquet(paths.scores, index=False)
    write_metrics(paths.summary, summarise(scores, registry, SETTINGS.resamples))
    _write_diagnostics(paths, scores, examples)
    write_metrics(paths.in_context, {})  # only embedded data have this table
    _write_trainings(paths, registry)
    return len(scores)


def _photographs(folder: Path) -> list[str]:
    """Write images that are smooth with a little noise, like photographs; return their paths."""
    folder.mkdir(parents=True)
    rng, names = np.random.default_rng(0), []
    for number in range(PHOTOGRAPHS):
        rough = rng.integers(20, 236, (24, 32, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(rough).resize(SIZE), dtype=np.int64)
        noisy = smooth + rng.integers(-20, 20, smooth.shape)
        names.append(str(folder / f"{number}.jpg"))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(names[-1], quality=90)
    return names


def _write_diagnostics(paths: Paths, scores: pd.DataFrame, examples: dict[int, Example]) -> None:
    spread = {"order_spread": 0.1, "set_spread": 0.2}
    order = {"questions": 100, "orders": 8, "sets": 8, **spread}
    content = {"copy": copy_rates(scores, examples), "order": order}
    write_metrics(paths.metrics / "diagnostics.json", content)
    write_metrics(paths.stop, {"rows": []})


def _write_trainings(paths: Paths, methods: Methods) -> None:
    ones = np.ones(3, dtype=np.float32)
    whitening = Whitening(ones, np.eye(3, dtype=np.float32), ones)
    space = FeatureSpace("e" * 64, dict.fromkeys(PARTS, whitening))
    policy = build_policy(PolicyConfig("stateful", 6, 9, hidden=4, shots=growth.SHOTS))
    config = CheckpointConfig(
        architecture=policy.config,
        feature_space=space.sha256,
        encoder=EncoderFacts(sha256=space.encoder, path="clip"),
        pool_sha256="0" * 64,
        vlm=VLM,
        prompt={"style": "chat", "instruction": ""},
        training={},
    )
    rows = [{"step": e, "epoch": e, "dev_reward": e / EPOCHS, "kl": 0.1} for e in range(EPOCHS)]
    history = "".join(json.dumps(row) + "\n" for row in rows)
    for each in training_runs(paths, SETTINGS.training_seeds, methods):
        save_checkpoint(each.checkpoint.parent, policy, space, config)
        write_text(each.history, history)
