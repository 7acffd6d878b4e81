"""GRPO with STOP: picks and the decision to show another demonstration, learned together.

With p_k the probability that a policy ends a pointer after k = 0..T picks, R_k the reward with k
demonstrations and c_k what they cost, the return of the pointer is, exactly and for all k at once,
    J = sum_k p_k U_k,  U_k = R_k - price c_k
No stop is ever sampled. After s picks, stopping is worth A_s = U_s - V_s more than going on, with
V_s = stop_{s+1} U_{s+1} + (1 - stop_{s+1}) V_{s+1} under the policy's own later decisions. The
gradient of J for a decision is reach_s stop_s (1 - stop_s) A_s: it vanishes where a decision is
sure or seldom reached, and a head that has learned to go on never learns to stop. So the decision
is learned as a classification by the sign of A_s that weighs |A_s|: its optimum stops where the
expected A_s is positive, as that of J, and a wrong decision has a gradient however sure it is.
    loss = mean_{B,G} sum_s |A_s| cross-entropy(stop_s, A_s > 0)
           + GRPO's surrogate with rewards-to-go sum_{k >= t} w_k U_k, w_k = (1 - f) p_k + f w'_k
           + beta * mean sum_t KL(pi_t || reference_t)
with w' the fixed shot weights and f `fixed_share`, so that what is shown without stops stays good.
A price is drawn for every query and epoch: one policy serves all prices. `passes` over the first
candidates train the head alone, the picks being what they were before.

Beside what every history says: `stop_loss`; `dev_demonstrations`, their mean number on dev at the
price of params.yaml. `dev_reward` is the return there, the price paid.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lever_plus.config.grpo import GrpoParams
from lever_plus.config.policy import PointerParams
from lever_plus.config.stop import StopParams
from lever_plus.policy.kinds import with_stop
from lever_plus.policy.network import Policy
from lever_plus.policy.stop import shown, stop_probabilities
from lever_plus.training import losses
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.environment import Environment, Frozen, Realised
from lever_plus.training.gradients import Part
from lever_plus.training.groups import Candidates, Groups
from lever_plus.training.loop import Loop, Trained
from lever_plus.training.returns import leave_one_out, reward_to_go
from lever_plus.training.rl_data.candidates import fresh_groups
from lever_plus.training.state import StateDict
from lever_plus.training.trainer import Means, Row, Run, Trainer, shuffled_batches


def train_stop(
    policy: Policy,
    environment: Environment,
    queries: Sequence[int],
    dev: Sequence[int],
    params: StopParams,
    grpo: GrpoParams,
    pointer: PointerParams,
    run: Run,
) -> Trained:
    """Train a policy, and when it stops.

    Args:
        policy: Without a stop head; it is the reference, too.
        environment: Pools, features and rewards.
        queries: Training queries.
        dev: Queries that the epoch is chosen on.
        params: Rounds, prices.
        grpo: Group size, clip and weight of the KL.
        pointer: The price that the epoch is chosen at, and its unit.
        run: Seed, observer, kept state.
    """
    reference = environment.frozen(policy)
    torch.manual_seed(run.seed)
    policy = with_stop(policy, max(*params.prices, pointer.price), pointer.price_per)
    bill = Bill(environment, pointer)
    evaluator = StopEvaluator(environment, dev, reference, bill)
    nothing = torch.zeros(len(queries), 1, 1, dtype=torch.long)
    candidates = Candidates(Groups(tuple(queries), nothing, nothing.float(), nothing[..., 0] > 0))
    batches = -(-len(queries) // params.batch_size)
    epochs = params.passes + params.rounds * params.epochs
    rates = {"stop.": params.head_rate}
    trainer = Trainer(policy, params, run, epochs * batches, rates)
    best = BestCheckpoint()
    loop = Loop(run, trainer, evaluator, best, candidates=candidates, bill=bill)
    loop.begin()
    for epoch in loop.epochs(epochs, "STOP"):
        done = epoch - params.passes - 1
        if epoch == 1 or (done >= 0 and done % params.epochs == 0):
            candidates.groups, candidates.log_probs = fresh_groups(
                policy, environment, queries, grpo.group_size, trainer.generator
            )
        alone = bill.alone("train", queries)
        # Drawn here: the parts of a batch run side by side, in no fixed order.
        drawn = torch.randint(len(params.prices), (len(queries),), generator=trainer.generator)
        prices = torch.tensor(params.prices)[drawn]
        costs = bill.costs(candidates.groups)
        round_ = _Round(candidates, alone, costs, prices, picks_learn=done >= 0)
        part = partial(_part, trainer, environment, reference, round_, params, grpo)
        policy.eval()
        policy.get_submodule("stop").train()
        means = Means()
        for rows in shuffled_batches(len(queries), params.batch_size, trainer.generator):
            means.add(trainer.update(rows, part, dropout=True))
        loop.evaluate(epoch, means.row())
    return loop.trained()


class Bill:
    """What demonstrations cost, what is paid for them, and what there is without them."""

    def __init__(self, environment: Environment, pointer: PointerParams) -> None:
        """Keep the unit, and the price on dev."""
        self._environment, self._per, self.price = environment, pointer.price_per, pointer.price
        self._alone: dict[str, Tensor] = {}

    def alone(self, split: str, queries: Sequence[int]) -> Tensor:
        """Return the rewards of a split's queries without demonstrations, [n, 1, 1]; asked once."""
        if split not in self._alone:
            found = self._environment.rewards_alone(queries)
            self._alone[split] = torch.from_numpy(found).view(-1, 1, 1)
        return self._alone[split]

    def state_dict(self) -> StateDict:
        """Return the rewards that were asked for."""
        return dict(self._alone)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the rewards that another training asked for."""
        self._alone = dict(state)

    def costs(self, groups: Groups) -> Tensor:
        """Return the units of 0, 1, ..., T demonstrations, [n, G, T + 1]."""
        count, size, shots = groups.pointers.shape
        numbers = torch.arange(shots + 1.0).expand(count, size, -1)
        if self._per == "demonstration":
            return numbers
        ids = self._environment.example_ids(groups.queries, groups.pointers)
        asked = [query for query, group in zip(groups.queries, ids, strict=True) for _ in group]
        pointers = [pointer for group in ids for pointer in group]
        return self._environment.added_tokens(asked, pointers).view(count, size, -1)


class StopEvaluator(DevEvaluator):
    """Scores a policy on dev by what it shows, the price paid."""

    def __init__(
        self, environment: Environment, dev: Sequence[int], reference: Frozen, bill: Bill
    ) -> None:
        """Keep what it evaluates with."""
        super().__init__(environment, dev, reference)
        self._bill = bill

    @torch.no_grad()
    def figures(self, policy: Policy, realised: Realised) -> Row:
        """Return the return at the price of params.yaml, and how much is shown."""
        environment, dev = self._environment, self._dev
        places = map(environment.pools.positions, dev, realised.pointers)
        pointers = torch.tensor([[place] for place in places])
        keep = torch.ones(len(dev), 1, dtype=torch.bool)
        rewards = torch.from_numpy(realised.rewards)
        groups = Groups(tuple(dev), pointers, rewards.unsqueeze(1), keep)
        costs = self._bill.costs(groups)[:, 0]
        encoded = environment.encode(policy, dev)
        log_probs = policy.steps(encoded, pointers).joined()
        prices = torch.full((len(dev),), self._bill.price)
        count = shown(policy.stop_log_odds(encoded, pointers, log_probs, prices))
        alone = self._bill.alone("dev", dev)[:, 0]
        values = torch.cat([alone, rewards], dim=-1) - self._bill.price * costs
        return {
            **super().figures(policy, realised),
            "dev_demonstrations": count.float().mean().item(),
            "dev_reward": values.gather(1, count).mean().item(),
        }


class _Round:
    """Candidates, and what they are worth at 0..T demonstrations, each query's price paid."""

    def __init__(
        self,
        candidates: Candidates,
        alone: Tensor,
        costs: Tensor,
        prices: Tensor,
        *,
        picks_learn: bool,
    ) -> None:
        groups = candidates.groups
        if candidates.log_probs is None:
            raise ValueError("the candidates were not drawn from this policy")
        self.groups, self.old, self.prices = groups, candidates.log_probs, prices
        self.picks_learn = picks_learn
        first = alone.expand(-1, groups.rewards.shape[1], -1)
        rewards = torch.cat([first, groups.rewards], dim=-1)
        self.values = rewards - prices[:, None, None] * costs


def _part(
    trainer: Trainer,
    environment: Environment,
    reference: Frozen,
    round_: _Round,
    params: StopParams,
    grpo: GrpoParams,
    rows: Tensor,
) -> Part:
    """Return loss and figures of some of the queries."""
    policy, part = trainer.policy, round_.groups.rows(rows)
    prices, values = round_.prices[rows], round_.values[rows]
    with torch.set_grad_enabled(round_.picks_learn):
        encoded = environment.encode(policy, part.queries)
        steps = policy.steps(encoded, part.pointers)
    # The head learns from what picks are, and does not push them.
    seen = encoded._replace(keys=encoded.keys.detach())
    odds = policy.stop_log_odds(seen, part.pointers, steps.joined().detach(), prices)
    stop_loss = losses.stop(odds, values)
    figures = {"stop_loss": stop_loss.item()}
    if not round_.picks_learn:
        return Part(stop_loss, {**figures, "kl_penalty": 0.0})
    weights = torch.tensor(environment.trained_weights)
    mixed = (1 - params.fixed_share) * stop_probabilities(odds.detach())[..., 1:]
    returns = reward_to_go(values[..., 1:], mixed + params.fixed_share * weights)
    advantages = leave_one_out(returns, part.keep)
    log_probs, old = steps.picked(part.pointers), round_.old[rows]
    surrogate, _ = losses.grpo(log_probs, old, advantages, part.keep, grpo.clip_low, grpo.clip_high)
    at_reference = reference.steps(part.queries, part.pointers)
    first, later = (kl.sum(-1) for kl in map(losses.exact_kl, steps, at_reference))
    kl = losses.group_mean(first + later, part.keep)
    return Part(stop_loss + surrogate + grpo.kl_beta * kl, {**figures, "kl_penalty": kl.item()})
