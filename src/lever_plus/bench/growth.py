"""Time and memory of what grows with the data: reading RL data, the bootstrap, many questions.

The data are made here, like those of the pipeline: records with sixteen candidates of four
demonstrations, pools of 64, and a score table with as many methods, shots and seeds as the pipeline
evaluates. Reading, summarising and the report (see `bench.report`) each run in a process of their
own, so that the peak memory of each is measured separately.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pandas as pd

from lever_plus.bench.memory import peak_rss_mb

CANDIDATES, SHOTS, POOL, EXAMPLES = 16, 4, 64, 100_000
CLUSTERS: Final = (5_000, 5_001, 20_000)
"""Numbers of images to resample: the most whose draws take 8 bytes each, one more, and many."""
SEEDS, RESAMPLES, DECISIONS = 3, 2_000, 60
Figures = dict[str, float | int]


def run(records: int, questions: int) -> dict[str, Figures]:
    """Return seconds and peak memory in MB of each part, and milliseconds of the bootstrap.

    Args:
        records: Number of queries in the RL data.
        questions: Number of test questions.
    """
    with TemporaryDirectory() as folder:
        make_rl_data(Path(folder), records)
        reading = _in_process("read", folder)
    return {
        "rl_data": reading,
        "bootstrap": {f"{count}_clusters_ms": _bootstrap_ms(count) for count in CLUSTERS},
        "summary": _in_process("summarise", str(questions)),
        "report": _in_process("report", str(questions)),
    }


def make_rl_data(
    folder: Path, count: int, examples: int = EXAMPLES, others: Sequence[int] = ()
) -> None:
    """Write a pool file and RL data for it.

    Args:
        folder: Where the files go.
        count: Number of queries in the RL data; their ids follow those of the examples.
        examples: Number of examples that pools are drawn from; their ids begin at 0.
        others: Ids of further queries, which get a pool but no RL data.
    """
    from lever_plus.data.pools import write_pools
    from lever_plus.training.rl_data.records import Meta, QueryRecord, write_rl_data

    rng = np.random.default_rng(0)
    queries = range(examples, examples + count)
    drawn = {q: tuple(_distinct(rng, examples, POOL)) for q in (*queries, *others)}
    pools = write_pools(folder / "pools.jsonl", drawn)
    vlm = dict.fromkeys(("model", "revision", "dtype", "prompt_hash", "generation"), "bench")
    meta = Meta.model_validate(
        {
            "vlm": vlm,
            "metric": "bench",
            "pool_sha256": pools.sha256,
            "feature_space": "bench",
            "policy_sha256": "bench",
            "records": count,
        }
    )

    def records() -> Iterator[QueryRecord]:
        for query in queries:
            pool = pools.of(query)
            candidates = [_candidate(rng, pool) for _ in range(CANDIDATES)]
            content = {"query_id": query, "question_id": query, "pool": pool}
            yield QueryRecord.model_validate({**content, "candidates": candidates})

    write_rl_data(folder, meta, records())


def _distinct(rng: np.random.Generator, among: int, count: int) -> list[int]:
    found: list[int] = rng.choice(among, count, replace=False).tolist()
    return found


def _candidate(rng: np.random.Generator, pool: tuple[int, ...]) -> dict[str, Any]:
    pointer = [pool[i] for i in _distinct(rng, POOL, SHOTS)]
    # Outcomes follow from the pointer: one that is drawn twice must have the same.
    right = [sum(pointer[:shot]) % 2 for shot in range(1, SHOTS + 1)]
    shots = [
        {
            "shot": shot,
            "answer": f"answer {int(hit)}",
            "vqa_correct": hit,
            "vqa_acc_score": 0.9 * hit,
            "fallback": False,
        }
        for shot, hit in enumerate(right, start=1)
    ]
    return {
        "pointer": pointer,
        "gen_method": "sample",
        "temperature": 1.0,
        "step_log_probs": [-1.0] * SHOTS,
        "shots": shots,
    }


def read(folder: Path) -> Figures:
    """Read RL data in this process, as a training does; return time and peak memory."""
    from lever_plus.config.reward import RewardParams
    from lever_plus.data.pools import read_pools
    from lever_plus.training.groups import groups_from_records
    from lever_plus.training.rl_data.headroom import informative
    from lever_plus.training.rl_data.records import read_rl_data

    before, start = peak_rss_mb(), time.perf_counter()
    pools = read_pools(folder / "pools.jsonl")
    _, records = read_rl_data(folder, pools)
    reward = RewardParams(soft=1.0, clip=1.0, shot_weights=[1.0 / SHOTS] * SHOTS)
    groups = groups_from_records(informative(records, 0.0), pools, reward)
    return {
        "records": len(groups.queries),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_rss_mb": peak_rss_mb(),
        "peak_before_mb": before,
    }


def _bootstrap_ms(count: int) -> float:
    """Return the milliseconds of one interval over `count` questions, after a warm-up."""
    from lever_plus.evaluation.statistics import bootstrap

    scores = np.random.default_rng(0).random(count)
    bootstrap(scores, RESAMPLES)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        bootstrap(scores, RESAMPLES)
        times.append(time.perf_counter() - start)
    return round(1000 * min(times), 1)


def summarise(questions: int) -> Figures:
    """Summarise a score table in this process, as evaluation, report and model cards do."""
    from lever_plus.config.names import SFT
    from lever_plus.data.examples import Example
    from lever_plus.evaluation import summary
    from lever_plus.evaluation.diagnostics import copy_rates
    from lever_plus.evaluation.methods import ZERO_SHOT, methods_of
    from lever_plus.report import findings
    from lever_plus.report.decisions import gather, sample
    from lever_plus.report.sentences import sentences

    registry = methods_of({}, {SFT: "scores"}, 16, stops=False, instructed=False)
    scores = score_table(
        questions, [method.name for method in registry if method.name != ZERO_SHOT]
    )
    examples = {i: Example("", "", "yes", question_id=i) for i in range(questions)}
    before, start = peak_rss_mb(), time.perf_counter()
    found = summary.summarise(scores, registry, RESAMPLES)
    copy_rates(scores, examples)
    middle = time.perf_counter()
    told = list(sentences(found, scores, RESAMPLES))
    findings.way_to_oracle(scores, registry, RESAMPLES)
    shown = sample(gather(scores, examples, registry), DECISIONS)
    return {
        "questions": questions,
        "scores": len(scores),
        "summary_seconds": round(middle - start, 2),
        "report_seconds": round(time.perf_counter() - middle, 2),
        "sentences": len(told),
        "decisions": len(shown),
        "peak_rss_mb": peak_rss_mb(),
        "peak_before_mb": before,
    }


def score_table(questions: int, methods: list[str]) -> pd.DataFrame:
    """Return a score table like that of `evaluate`: every method at every shot and seed."""
    rng = np.random.default_rng(0)
    rows = len(methods) * SEEDS * SHOTS * questions
    index = np.arange(rows)
    query = index // SHOTS % questions
    right = rng.integers(0, 2, rows)
    pointers = np.arange(questions * SHOTS).reshape(questions, SHOTS) % questions
    return pd.DataFrame(
        {
            "method": np.repeat(methods, SEEDS * SHOTS * questions),
            "seed": index // (SHOTS * questions) % SEEDS + 1,
            "query_id": query,
            "image_id": query,
            "shot": index % SHOTS + 1,
            "pointer": [pointers[q, : s + 1] for q, s in zip(query, index % SHOTS, strict=True)],
            "step_log_probs": [pointers[0, :0]] * rows,
            "answer": "yes",
            "vqa_correct": right,
            "vqa_acc_score": 0.9 * right,
            "fallback": False,
            "prompt_tokens": 14 + 14 * (index % SHOTS + 1),
        }
    )


def report(questions: int) -> Figures:
    """Write the report of a made-up project in this process."""
    from lever_plus.bench import report as of_project

    with TemporaryDirectory() as folder:
        return of_project.run(Path(folder), questions)


def _in_process(what: str, of: str) -> Figures:
    command = [sys.executable, "-m", "lever_plus.bench.growth", what, of]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def _main(what: str, of: str) -> None:
    if what == "read":
        measured = read(Path(of))
    else:
        measured = (report if what == "report" else summarise)(int(of))
    print(json.dumps(measured))  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
