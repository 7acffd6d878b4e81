"""Stage rl_data: SFT policy + VLM -> scored candidates, the RL data."""

import hashlib

from lever_plus.params import Params
from lever_plus.rl.candidates import Proposal, propose
from lever_plus.rl.groups import Groups, groups_from_records
from lever_plus.rl.records import Candidate, Meta, QueryRecord, Shot, write_rl_data
from lever_plus.rl.rewards import informative
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Workspace
from lever_plus.vlm.scorer import METRIC, ShotScore


def run(params: Params) -> Outcome:
    """Propose candidates for every RL query and score each at every shot."""
    workspace = Workspace(params)
    queries = workspace.queries("train", params.data.rl_queries)
    policy = workspace.load_policy(paths.SFT)
    environment = workspace.environment
    proposals = propose(environment, policy, queries, params.rl_data, params.seed)
    scores = iter(
        environment.scorer.score_pointers(
            [query for query, group in zip(queries, proposals, strict=True) for _ in group],
            [proposal.pointer for group in proposals for proposal in group],
            "RL data",
        )
    )
    records = [
        QueryRecord(
            query_id=query,
            question_id=query,
            pool=workspace.pools.of(query),
            candidates=tuple(_candidate(proposal, next(scores)) for proposal in group),
        )
        for query, group in zip(queries, proposals, strict=True)
    ]
    meta = Meta(
        vlm=workspace.vlm.identity,
        metric=METRIC,
        pool_sha256=workspace.pools.sha256,
        encoder=workspace.embeddings.encoder,
        policy_sha256=hashlib.sha256((paths.SFT / paths.POLICY).read_bytes()).hexdigest(),
        records=len(records),
    )
    write_rl_data(paths.RL_DATA, meta, records)
    statistics = describe(groups_from_records(records, workspace.pools, params.reward.shot_weights))
    write_metrics(paths.METRICS / "rl_data.json", {**statistics})
    return Outcome(
        (
            f"{len(records)} queries, mean reward {statistics['reward']:.3f}, "
            f"{statistics['constant_groups']:.0%} of the groups are constant"
        ),
        workspace.vlm.usage,
    )


def _candidate(proposal: Proposal, scores: list[ShotScore]) -> Candidate:
    return Candidate(
        pointer=proposal.pointer,
        gen_method=proposal.gen_method,
        temperature=proposal.temperature,
        step_log_probs=proposal.step_log_probs,
        shots=tuple(
            Shot(
                shot=number,
                answer=score.answer,
                vqa_correct=1 if score.vqa_correct else 0,
                vqa_acc_score=score.vqa_acc_score,
                fallback=score.fallback,
            )
            for number, score in enumerate(scores, start=1)
        ),
    )


def describe(groups: Groups) -> dict[str, float]:
    """Return what tells whether there is anything to learn from the groups."""
    returns = groups.rewards.mean(-1)
    return {
        "reward": round(returns[groups.keep].mean().item(), 6),
        "best_of_group": round(returns.amax(-1).mean().item(), 6),
        "constant_groups": round(
            1 - informative(groups.rewards, groups.keep).float().mean().item(), 6
        ),
        "distinct_share": round(groups.keep.float().mean().item(), 6),
    }
