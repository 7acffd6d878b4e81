"""A small project folder with everything that the report reads, made without any model."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lever_plus.config.file import load_params
from lever_plus.config.settings import settings_of
from lever_plus.data.examples import Example, write_examples
from lever_plus.data.pools import write_pools
from lever_plus.evaluation.costs import with_costs
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.methods import methods_of
from lever_plus.evaluation.summary import summarise
from lever_plus.features.whitening import PARTS, FeatureSpace, Whitening
from lever_plus.pipeline.outputs import write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.report import Settings
from lever_plus.pipeline.runs import training_runs
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.network import PolicyConfig
from lever_plus.report.sections import IN_CONTEXT
from lever_plus.training.rl_data.records import Candidate, Meta, QueryRecord, Shot, write_rl_data
from lever_plus.vlm.request import VlmIdentity
from tiny_world import REGISTRY, ROOT, random_policy

NASTY = '</script><img src=x onerror=alert(1)> & "quoted" [bold]?'
POOL = tuple(range(1, 41))
DEV = 500
QUESTIONS = tuple(range(1000, 1100))
ORACLE = QUESTIONS[:40]
SHOTS = 4
SEEDS = (1, 2)
TRAINED = ("sft", "sft-beams", "rce", "agro", "grpo", "grpo-stop")
PROPOSERS = {1: "f" * 64, 2: "d" * 64}
METHODS = {
    "zero-shot": (0,),
    "random": (0, 1),
    "sttr": (0,),
    "siir": (0,),
    **dict.fromkeys(TRAINED, SEEDS),
    "oracle": (0,),
}
RIGHT = {"grpo": (0, 1), "rce": (0, 2), "oracle": (0, 1, 2), "sft": (0,), "sttr": (3,)}
"""A question is answered right where its id modulo 4 is one of these."""
PRICES = [
    {
        "price": price,
        "accuracy": accuracy,
        "ci95": [accuracy - 0.02, accuracy + 0.02],
        "n": 100,
        "seeds": 2,
        "one_training": False,
        "seed_accuracies": [accuracy - 0.01, accuracy + 0.01],
        "shots": SHOTS,
        "demonstrations": count,
        "prompt_tokens": None,
    }
    for price, accuracy, count in ((0.0, 0.7, 2.5), (0.06, 0.69, 1.25))
]
"""What the policy that stops reaches at two prices."""
ABLATIONS = {
    "curve": "What is a call worth?",
    "rows": [
        {
            "asks": "What is a call worth?",
            "variant": "few",
            "method": "grpo",
            "shots": {str(shot): 0.5 for shot in range(1, SHOTS + 1)},
            "accuracy": 0.5,
            "ci95": [0.4, 0.6],
            "n": 100,
            "one_training": False,
            "vlm_requests": 123_456.0,
            "versus": "",
            "difference": None,
            "reward_std": None,
        }
    ],
}
"""What one variant gave."""


@dataclass(frozen=True)
class Made:
    """Its places, the stage's settings, its examples and what each of them scored."""

    paths: Paths
    settings: Settings
    examples: dict[int, Example]
    scores: pd.DataFrame


VLM: VlmIdentity = {
    "model": "Tiny",
    "revision": "r" * 64,
    "dtype": "float32",
    "prompt_hash": "p" * 64,
    "generation": "one token",
}


def make(folder: Path) -> Made:
    """Write a project into a folder."""
    paths = Paths(folder)
    whole = load_params(ROOT / "params.yaml")
    evaluate = whole.evaluate.model_copy(update={"resamples": 100})
    params = whole.model_copy(update={"training_seeds": list(SEEDS), "evaluate": evaluate})
    settings = settings_of(Settings, params)
    examples = {i: _example(paths, i) for i in (*POOL, DEV, *QUESTIONS)}
    splits = {"train": POOL, "dev": (DEV,), "test": QUESTIONS}
    for split, ids in splits.items():
        write_examples(paths.prepare / f"{split}.jsonl", [examples[i] for i in ids], folder)
    write_metrics(paths.source / "latent.json", {str(i): _latent(i) for i in examples})
    scores = _scores()
    paths.scores.parent.mkdir(parents=True)
    scores.to_parquet(paths.scores, index=False)
    requests = {method: [1000 * seed for seed in SEEDS] for method in TRAINED}
    summary = with_costs(summarise(scores, REGISTRY, 100), scores, requests)
    write_metrics(paths.summary, summary)
    write_metrics(paths.timing, {"rce": 0.5})
    write_metrics(paths.metrics / "diagnostics.json", _diagnostics())
    write_metrics(paths.stop, {"price_per": "demonstration", "rows": PRICES})
    write_metrics(paths.ablations, ABLATIONS)
    write_metrics(paths.in_context, {row: i / 20 for i, row in enumerate(IN_CONTEXT)})
    _rl_data(paths)
    pools = write_pools(paths.pools, dict.fromkeys(QUESTIONS, POOL)).sha256
    space = _space()
    policy = random_policy(PolicyConfig("stateful", 6, 9, hidden=4, shots=SHOTS)).float()
    config = CheckpointConfig(
        architecture=policy.config,
        feature_space=space.sha256,
        encoder=EncoderFacts(sha256=space.encoder, path="models/clip"),
        pool_sha256=pools,
        vlm=VLM,
        prompt={"style": "chat", "instruction": ""},
        training={},
    )
    methods = methods_of(params.rce.tau, params.sft.targets)
    for run in training_runs(paths, SEEDS, methods):
        save_checkpoint(run.checkpoint.parent, policy, space, config)
        rows = [
            {"step": 0, "epoch": 0, "dev_reward": 0.5, "entropy": 3.0, "kl": 0.0},
            {"step": 1, "epoch": 1, "dev_reward": 0.75, "entropy": 2.5, "kl": 0.1, "reward": 1.0},
            {"step": 2, "epoch": 2, "dev_reward": 0.75, "entropy": 2.0, "kl": 0.2, "reward": 1.1},
        ]
        run.history.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Made(paths, settings, examples, scores)


def _space() -> FeatureSpace:
    """Three components of each part."""
    ones = np.ones(3, dtype=np.float32)
    whitening = Whitening(ones, np.eye(3, dtype=np.float32), ones)
    return FeatureSpace("e" * 64, dict.fromkeys(PARTS, whitening))


def _example(paths: Paths, key: int) -> Example:
    path = paths.images / f"{key}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(key).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 120)).save(path)
    question = NASTY if key in (POOL[0], QUESTIONS[0]) else f"What is number {key}?"
    answers = (*["right"] * 7, *["<b>also</b>"] * 3)
    return Example(str(path), question, "right", answers, key, key, "0" * 64)


def _latent(key: int) -> dict[str, object]:
    """Every question asks for ink, every fifth in plain words; the others need the language."""
    languages = {"german": "norvic", "french": "ivorn", "spanish": "eskar"}
    language = list(languages)[key % 3]
    plain = key % 5 == 0
    return {
        "attribute": "ink",
        "language": language,
        "attribute_word": "ink",
        "style_word": language.capitalize() if plain else languages[language],
        "needs": [] if plain else ["language"],
        "values": {"digit": 1, "ink": 1, "pattern": 1, "corner": 1},
    }


def _scores() -> pd.DataFrame:
    rows = [
        Row(
            *(method, seed, query, query, shot),
            *(*_shown(method, query, shot), *_said(method, query), 10 + 15 * shot),
        )
        for method, seeds in METHODS.items()
        for seed in seeds
        for query in (ORACLE if method == "oracle" else QUESTIONS)
        for shot in ((0,) if method == "zero-shot" else range(1, SHOTS + 1))
    ]
    return pd.DataFrame(rows)


def _shown(method: str, query: int, shot: int) -> tuple[list[int], list[float]]:
    """The oracle searches anew at every shot, grpo-stop stops; only policies know log-probs."""
    shot = min(shot, query % (SHOTS + 1)) if method == "grpo-stop" else shot
    first = query * len(method) + (7 * shot if method == "oracle" else 0)
    pointer = [POOL[(first + 3 * i) % len(POOL)] for i in range(shot)]
    return pointer, [-0.5 * (i + 1) for i in range(shot)] if method in TRAINED else []


def _said(method: str, query: int) -> tuple[str, int, float, bool]:
    right = query % 4 in RIGHT.get(method, ())
    return "right" if right else f"{method} <i>", int(right), 0.9 if right else 0.0, False


def _diagnostics() -> dict[str, object]:
    rates = {"copied": 0.123, "copied_last": 0.1, "shown": 0.4, "accuracy_shown": 0.77}
    copy = [
        {"method": method, "shots": shot, **rates, "accuracy_not_shown": None}
        for method in ("sft", "grpo")
        for shot in range(1, SHOTS + 1)
    ]
    order = {"questions": 8, "orders": 8, "sets": 8, "order_spread": 0.081, "set_spread": 0.204}
    return {"copy": copy, "order": order}


def _rl_data(paths: Paths) -> None:
    pools = write_pools(paths.pools, dict.fromkeys(QUESTIONS, POOL))
    records = [
        QueryRecord(
            query_id=query,
            question_id=query,
            pool=POOL,
            candidates=tuple(_candidate(query, i) for i in range(2 + query % 2)),
        )
        for query in QUESTIONS[:10]
    ]
    for seed, proposer in PROPOSERS.items():
        meta = Meta(
            vlm=VLM,
            metric="VQA accuracy",
            pool_sha256=pools.sha256,
            feature_space="5" * 64,
            policy_sha256=proposer,
            records=10,
        )
        write_rl_data(paths.rl_data(seed), meta, records)


def _candidate(query: int, number: int) -> Candidate:
    """The first of a query comes from the beam and is right, the others are random and wrong."""
    shots = tuple(
        Shot(
            shot=shot,
            answer="x",
            vqa_correct=1 if number == 0 else 0,
            vqa_acc_score=1.0 if number == 0 else 0.0,
            fallback=False,
        )
        for shot in range(1, SHOTS + 1)
    )
    return Candidate(
        pointer=tuple(POOL[(query + number + 5 * i) % len(POOL)] for i in range(SHOTS)),
        gen_method="beam" if number == 0 else "random",
        temperature=None,
        step_log_probs=None,
        shots=shots,
    )
