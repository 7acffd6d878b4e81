"""GRPO: rounds of fresh candidates, credit per step, exact KL to a frozen reference.

One round: sample G pointers a query from the policy, score every prefix with the VLM, then train
on them for a few epochs:
    loss = -mean min(rho_t A_t, clip(rho_t) A_t) + beta * mean_t KL(pi_t || reference_t)
    A_t  = G_t - leave-one-out mean of the group's G_t,  G_t = sum_{k>=t} w_k R_k
Deviations from Shao et al. 2024: reward-to-go per step instead of one advantage a sequence, no
division by the group's standard deviation, clip-higher, and the KL is exact because the pool is
small enough for whole step distributions. With `rounds: 0` the RL data take the place of fresh
candidates, and the policy at the start that of the sampler. All log-probs come from eval mode.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from lever_plus.params import GrpoParams
from lever_plus.policy.decoding import sample
from lever_plus.policy.network import Selector
from lever_plus.rl import losses
from lever_plus.rl.environment import DECODE_BATCH, Environment
from lever_plus.rl.fitting import Fitting, Means, Observe, epochs, shuffled_batches
from lever_plus.rl.groups import Groups, first_occurrences
from lever_plus.rl.rewards import informative, leave_one_out, reward_to_go


@dataclass(frozen=True)
class Round:
    """The informative groups of a round, with what training on them needs.

    Attributes:
        groups: Candidates.
        advantages: [n, G, T].
        old: Log-probs [n, G, T] of the policy the round started with.
        statistics: What the history says about the round as a whole.
    """

    groups: Groups
    advantages: Tensor
    old: Tensor
    statistics: dict[str, float]


def train_grpo(
    policy: Selector,
    environment: Environment,
    offline: Groups,
    dev: Sequence[int],
    params: GrpoParams,
    seed: int,
    observe: Observe,
) -> Fitting:
    """Train a policy and return the fitting with its best epoch.

    Args:
        policy: The policy to start from; a frozen copy of it is the reference.
        environment: Pools, features and rewards.
        offline: Groups of the RL data; their queries are the training queries.
        dev: Queries that the epoch is chosen on.
        params: Rounds, group size, clip, beta.
        seed: Order of the batches and the sampling.
        observe: Gets every history row.
    """
    reference = deepcopy(policy).eval()
    generator = torch.Generator().manual_seed(seed)
    fitting = Fitting(policy.eval(), environment, params, dev, observe)
    for number in range(max(1, params.rounds)):
        groups = offline
        if params.rounds:
            groups = sample_groups(policy, environment, offline.queries, params, generator)
        current = _prepare(policy, environment, groups)
        for epoch in epochs(params.epochs, f"GRPO round {number + 1}"):
            row = _epoch(fitting, current, reference, params, generator)
            total = number * params.epochs + epoch
            fitting.evaluate(total, {"round": number + 1, **row, **current.statistics})
    return fitting


@torch.no_grad()
def sample_groups(
    policy: Selector,
    environment: Environment,
    queries: Sequence[int],
    params: GrpoParams,
    generator: torch.Generator,
) -> Groups:
    """Sample and score `group_size` fresh candidates of every query."""
    positions = []
    for start in range(0, len(queries), DECODE_BATCH):
        encoded = environment.encode(policy, queries[start : start + DECODE_BATCH])
        drawn = sample(policy, encoded, environment.shots, params.group_size, 1.0, generator)
        positions.append(drawn.pointers)
    pointers = torch.cat(positions)
    ids = environment.example_ids(queries, pointers)
    rewards = environment.scorer.rewards(
        [query for query in queries for _ in range(params.group_size)],
        [pointer for group in ids for pointer in group],
        "fresh candidates",
    )
    return Groups(
        queries=tuple(queries),
        pointers=pointers,
        rewards=torch.from_numpy(rewards).view(pointers.shape),
        # Independent draws may repeat: each is a sample of its own for the on-policy gradient.
        keep=torch.ones(pointers.shape[:2], dtype=torch.bool),
    )


@torch.no_grad()
def _prepare(policy: Selector, environment: Environment, groups: Groups) -> Round:
    """Compute advantages and old log-probs, and drop constant groups."""
    returns = reward_to_go(groups.rewards, torch.tensor(environment.shot_weights))
    useful = informative(returns, groups.keep)
    advantages = leave_one_out(returns, groups.keep)
    distinct = first_occurrences(groups.pointers) & groups.keep
    statistics = {
        "reward": returns[..., 0][groups.keep].mean().item(),
        "reward_std": returns[..., 0].std(1).mean().item(),
        "frac_reward_zero_std": 1.0 - useful.float().mean().item(),
        "advantage_std": advantages[useful].std().item() if useful.any() else 0.0,
        "distinct_share": (distinct.sum() / groups.keep.sum()).item(),
    }
    rows = useful.nonzero().flatten()
    kept = groups.rows(rows)
    policy.eval()
    old = [
        policy.log_probs(environment.encode(policy, part.queries), part.pointers)
        for part in (kept.rows(r) for r in torch.arange(len(rows)).split(DECODE_BATCH) if len(r))
    ]
    log_probs = torch.cat(old) if old else torch.empty_like(advantages[rows])
    return Round(kept, advantages[rows], log_probs, statistics)


def _epoch(
    fitting: Fitting,
    current: Round,
    reference: Selector,
    params: GrpoParams,
    generator: torch.Generator,
) -> dict[str, float | int | str]:
    """Train one epoch on a round; return its mean statistics."""
    policy, environment, means = fitting.policy.eval(), fitting.environment, Means()
    for rows in shuffled_batches(len(current.groups.queries), params.batch_size, generator):
        part = current.groups.rows(rows)
        encoded = environment.encode(policy, part.queries)
        steps = policy.step_log_probs(encoded, part.pointers)[:, :, : part.pointers.shape[2]]
        log_probs = steps.gather(-1, part.pointers.unsqueeze(-1)).squeeze(-1)
        surrogate, clipped = losses.grpo(
            log_probs,
            current.old[rows],
            current.advantages[rows],
            part.keep,
            params.clip_low,
            params.clip_high,
        )
        kl = losses.exact_kl(steps, _reference_steps(environment, reference, part))[part.keep]
        loss = surrogate + params.kl_beta * kl.sum(-1).mean()
        norm = fitting.update(loss)
        entropies = losses.entropy(steps.detach())[part.keep].mean(0)
        kls = kl.detach().mean(0)
        means.add(
            {
                "loss": loss.item(),
                "surrogate": surrogate.item(),
                "kl": kls.sum().item(),
                "clip_ratio": clipped.item(),
                "entropy": entropies.mean().item(),
                "grad_norm": norm,
                **{f"kl_step_{t}": value for t, value in enumerate(kls.tolist(), start=1)},
                **{f"entropy_step_{t}": v for t, v in enumerate(entropies.tolist(), start=1)},
            }
        )
    return means.row()


@torch.no_grad()
def _reference_steps(environment: Environment, reference: Selector, part: Groups) -> Tensor:
    encoded = environment.encode(reference, part.queries)
    return reference.step_log_probs(encoded, part.pointers)[:, :, : part.pointers.shape[2]]
