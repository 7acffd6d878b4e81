"""Stage rl_data: SFT policy and VLM -> the RL data of one seed, which are scored candidates."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Annotated, Final

from lever_plus.config.base import Count, Section
from lever_plus.config.names import SFT
from lever_plus.config.rl_data import RlDataParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.encoding import DECODE_BATCH
from lever_plus.training.environment import Environment, Scored
from lever_plus.training.rewards import Floats
from lever_plus.training.rl_data.candidates import Proposal, propose
from lever_plus.training.rl_data.headroom import Meter
from lever_plus.training.rl_data.records import Candidate, Meta, QueryRecord, Shot, write_rl_data
from lever_plus.vlm.scorer import METRIC
from lever_plus.vlm.store.cached import StoredVlm

PART: Final = 8 * DECODE_BATCH
"""How many queries are scored together; this bounds the stage's memory."""


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    rl_data: RlDataParams
    shots: Annotated[int, From("pointer.shots")]
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    rl_queries: Annotated[Count, From("data.rl_queries")]


def run(settings: Settings, paths: Paths, seed: int, vlm: StoredVlm | None = None) -> Outcome:
    """Propose candidates for every RL query, and score each candidate at every shot.

    The seed's SFT policy proposes them; the same seed is used for what is drawn at random.
    """
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    queries = workspace.queries("train", settings.rl_queries)
    proposer = paths.trained(SFT, seed)
    policy = workspace.load_policy(proposer)
    environment = workspace.environment(settings.shots)
    proposals = propose(environment, policy, queries, settings.rl_data, seed)
    records = _records(environment, queries, proposals, settings.rl_data.scores)
    meta = Meta(
        vlm=workspace.vlm.identity,
        metric=METRIC,
        pool_sha256=workspace.pools.sha256,
        feature_space=workspace.space.sha256,
        policy_sha256=hashlib.sha256(weights_of(proposer).read_bytes()).hexdigest(),
        records=len(queries),
    )
    meter = Meter()
    write_rl_data(paths.rl_data(seed), meta, meter.watching(records))
    headroom = meter.headroom()
    requests = {"vlm_requests": workspace.scorer.requests}
    metrics = paths.metrics / "rl_data" / f"seed{seed}.json"
    write_metrics(metrics, {**headroom.as_dict(), **requests})
    return Outcome(f"{len(queries)} queries. {headroom.verdict}", workspace.vlm.usage)


def _records(
    environment: Environment,
    queries: Sequence[int],
    proposals: Iterator[list[Proposal]],
    wanted: Collection[str],
) -> Iterator[QueryRecord]:
    """Yield the scored candidates of every query; only `PART` queries are in memory at once."""
    for start in range(0, len(queries), PART):
        part = queries[start : start + PART]
        groups = list(islice(proposals, len(part)))
        scored = environment.score(
            [query for query, group in zip(part, groups, strict=True) for _ in group],
            [proposal.pointer for group in groups for proposal in group],
            wanted,
            "RL data",
        )
        shots = _shots(scored)
        for query, group in zip(part, groups, strict=True):
            yield QueryRecord(
                query_id=query,
                question_id=query,
                pool=environment.pools.of(query),
                candidates=tuple(_candidate(proposal, next(shots)) for proposal in group),
            )


def _shots(scored: Scored) -> Iterator[tuple[Shot, ...]]:
    """Yield the scored shots of every pointer."""
    for row, answers in enumerate(scored.answers):
        yield tuple(
            Shot(
                shot=number,
                answer=score.answer,
                vqa_correct=1 if score.vqa_correct else 0,
                vqa_acc_score=score.vqa_acc_score,
                fallback=score.fallback,
                vqa_gt_prob=_at(scored.scores.gt_prob, row, number),
                vqa_rel_score=_at(scored.scores.relevance, row, number),
            )
            for number, score in enumerate(answers, start=1)
        )


def _at(scores: Floats | None, row: int, shot: int) -> float | None:
    return None if scores is None else round(float(scores[row, shot - 1]), 6)


def _candidate(proposal: Proposal, shots: tuple[Shot, ...]) -> Candidate:
    return Candidate(
        pointer=proposal.pointer,
        gen_method=proposal.gen_method,
        temperature=proposal.temperature,
        step_log_probs=proposal.step_log_probs,
        shots=shots,
    )
