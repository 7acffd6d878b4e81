"""Training speed: batches of whole groups, compared with one query per step.

The older system trains on one query per step: query and pool are copied and encoded for each of the
16 candidates, teacher forcing goes pick by pick, and GRPO's old log-probs are computed beforehand
in a separate pass. Both ways run here one after the other in one process, with the same network
(for RCE with its dropout), features and candidates: 800 groups of 16 candidates, pools of 64
examples, 512 feature dimensions. This project's way is timed as a whole training (batches,
schedule, dev evaluation of one query, and for GRPO the distributions of the reference), with the
batch size and the number of parallel parts of params.yaml, on one torch thread each. The other way
is timed with one torch thread and with all, and the faster run counts. Rewards are random: nothing
is learned.
"""

import timeit
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lever_plus.config.names import GRPO, RCE
from lever_plus.config.optim import OptimParams
from lever_plus.config.params import Params
from lever_plus.data.examples import Example
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.features.embeddings import Embeddings
from lever_plus.hub.threads import on_threads
from lever_plus.policy.kinds import build_policy, configure, with_dropout
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups
from lever_plus.training.grpo import train_grpo
from lever_plus.training.rce import train_rce
from lever_plus.training.returns import leave_one_out, reward_to_go
from lever_plus.training.trainer import Run
from lever_plus.vlm.scorer import Scorer, ShotScore

GROUPS, CANDIDATES, POOL, DIMENSIONS = 800, 16, 64, 512
SAMPLE = 100
"""Number of groups for the slow way."""
REPEATS = 5
DEV = -1
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Computes a loss from log-probs, old log-probs and returns [1, G, T], and bool keep [1, G]."""


class _Blind:
    """Gives every pointer the same score, so that dev evaluation takes almost no time."""

    requests = 0

    def score_pointers(
        self, examples: Sequence[Example], pointers: Sequence[Sequence[Example]], description: str
    ) -> list[list[ShotScore]]:
        return [[ShotScore(description, 0, 0.0) for _ in p] for p in pointers if examples]


def run(params: Params) -> dict[str, float]:
    """Time one epoch of RCE and of GRPO both ways.

    Returns:
        Groups per second of each, and the keys `speedup_rce` and `speedup_grpo`.

    Raises:
        UserError: params.yaml has no schedule of RCE.
    """
    threads = torch.get_num_threads()
    environment, groups = _workload(params)
    rce = params.rce.model_copy(update={"epochs": 1})
    grpo = params.grpo.model_copy(update={"epochs": 1, "rounds": 0})
    if not rce.tau:
        raise UserError("rce.tau has no schedule, but the benchmark trains with one: add one.")
    tau = next(iter(rce.tau.values()))
    quiet = Run(0, lambda _row: None, threads=params.threads)

    def policy() -> Policy:
        torch.manual_seed(0)
        sizes = {"query_size": DIMENSIONS, "candidate_size": DIMENSIONS}
        return build_policy(configure(params.policy, **sizes, shots=environment.shots))

    def weighted(log_probs: Tensor, _old: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        return losses.rce(log_probs, returns, keep, tau.start)

    def clipped(log_probs: Tensor, old: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        advantages = leave_one_out(returns, keep)
        return losses.grpo(log_probs, old, advantages, keep, grpo.clip_low, grpo.clip_high)[0]

    ours: dict[str, Callable[[], object]] = {
        RCE: lambda: train_rce(policy(), environment, groups, [DEV], rce, tau, quiet),
        GRPO: lambda: train_grpo(policy(), environment, groups, [DEV], grpo, quiet),
    }
    noisy = with_dropout(policy(), rce.dropout).train()
    theirs = {RCE: (noisy, weighted, rce), GRPO: (policy(), clipped, grpo)}
    found = {}
    for name, train in ours.items():
        slow = partial(_one_by_one, *theirs[name], environment, groups, name == GRPO)
        one_by_one = 0.0
        for count in {1, threads}:
            with on_threads(count):
                one_by_one = max(one_by_one, SAMPLE / _seconds(slow))
        with on_threads(1):
            batched = GROUPS / _seconds(train)
        found[f"{name}_groups_per_s_one_by_one"] = one_by_one
        found[f"{name}_groups_per_s"] = batched
        found[f"speedup_{name}"] = batched / one_by_one
    return {name: round(value, 1) for name, value in found.items()}


def _one_by_one(
    policy: Policy,
    loss: Loss,
    params: OptimParams,
    environment: Environment,
    groups: Groups,
    needs_old: bool,
    count: int = SAMPLE,
) -> None:
    """Train on `count` groups the other way, one query per step."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=params.learning_rate, fused=True)
    weights = torch.tensor(environment.shot_weights)
    rows = [groups.rows(torch.tensor([row])) for row in range(count)]
    with torch.no_grad():
        # A loss that needs no old log-probs does not read this value.
        old = [_pick_by_pick(policy, environment, part) if needs_old else weights for part in rows]
    for part, before in zip(rows, old, strict=True):
        picked = _pick_by_pick(policy, environment, part)
        value = loss(picked, before, reward_to_go(part.rewards, weights), part.keep)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), params.grad_clip)
        optimizer.step()


def _pick_by_pick(policy: Policy, environment: Environment, group: Groups) -> Tensor:
    """Return the log-probs [1, G, T] of one query's candidates, each with a copy of the pool."""
    features, pool = environment.embeddings, environment.pools.of(group.queries[0])
    query = torch.from_numpy(features.queries(group.queries)).repeat(CANDIDATES, 1)
    candidates = torch.from_numpy(features.candidates(features.rows_of(pool)))
    encoded = policy.encode(query, candidates.repeat(CANDIDATES, 1, 1))
    pointers = group.pointers.transpose(0, 1)  # [G, 1, T]: each candidate is a row of the batch
    steps = [
        policy.next_log_probs(encoded, pointers[:, :, :shot]) for shot in range(environment.shots)
    ]
    picked = torch.stack(steps, dim=2).gather(-1, pointers.unsqueeze(-1)).squeeze(-1)
    return picked.transpose(0, 1)


def _workload(params: Params) -> tuple[Environment, Groups]:
    """Return an environment with random features and pools, and groups of random candidates."""
    rng = np.random.default_rng(0)
    items = 2000
    queries = list(range(items, items + GROUPS))
    pools = {q: tuple(map(int, rng.choice(items, POOL, replace=False))) for q in [DEV, *queries]}
    rows = {i: i for i in range(items + GROUPS)} | {DEV: 0}
    white = rng.normal(size=(len(rows), DIMENSIONS)).astype(np.float32)
    shots = params.pointer.shots
    environment = Environment(
        pools=Pools(pools, "bench"),
        examples={i: Example("", "", "", question_id=i) for i in rows},
        embeddings=Embeddings(rows, {}, white, query_size=DIMENSIONS, space_sha256="bench"),
        scorer=cast(Scorer, _Blind()),
        shots=shots,
        reward=params.reward,
    )
    drawn = torch.multinomial(torch.ones(GROUPS * CANDIDATES, POOL), shots)
    pointers = drawn.view(GROUPS, CANDIDATES, shots)
    rewards = torch.randint(0, 2, pointers.shape).float()
    keep = torch.ones(GROUPS, CANDIDATES, dtype=torch.bool)
    return environment, Groups(tuple(queries), pointers, rewards, keep)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the shortest of several times in seconds, after a warm-up."""
    work()
    return min(timeit.repeat(work, number=1, repeat=REPEATS))
