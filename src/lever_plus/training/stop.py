"""GRPO with STOP: the policy learns its picks together with the decision to stop.

Let p_k be the probability that the policy ends a pointer after k = 0..T picks, R_k the reward with
k demonstrations, and c_k their cost. The expected return of the pointer is then known exactly, for
all k at once, and no stop is ever sampled:
    J = sum_k p_k U_k,  U_k = R_k - price c_k
After s picks, stopping is worth A_s = U_s - V_s more than continuing, where
V_s = stop_{s+1} U_{s+1} + (1 - stop_{s+1}) V_{s+1} follows from the policy's own later decisions.
The gradient of J for a decision is reach_s stop_s (1 - stop_s) A_s, where reach_s is the
probability that the policy reaches this decision. It vanishes if a decision is certain or rarely
reached, so a head that has learned to continue would never learn to stop. Therefore the decision is
learned as a classification of the sign of A_s, weighted by |A_s|. Its optimum is that of J, to stop
if the expected A_s is positive, and a wrong decision has a gradient however certain it is:
    loss = mean_{B,G} sum_s |A_s| cross-entropy(stop_s, A_s > 0)
           + GRPO's surrogate with rewards-to-go sum_{k >= t} w_k U_k, w_k = (1 - f) p_k + f w'_k
           + beta * mean sum_t KL(pi_t || reference_t)
Here w' are the fixed shot weights, and f is `fixed_share`: it keeps pointers good for a user who
never stops. A price is drawn for every query and epoch, so that one policy serves all prices. The
first `passes` epochs train only the head that decides to stop, on candidates of the policy before
training.

The history has these further keys: `stop_loss`; `dev_demonstrations`, the mean number of
demonstrations shown on dev at the price in params.yaml. `dev_reward` is the return on dev, with
this price subtracted.
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
    """Train a policy to pick, and to decide when to stop.

    Args:
        policy: The policy to start from, without a stop head; a frozen copy is the reference.
        environment: Pools, features and rewards.
        queries: Training queries.
        dev: Queries on which the best epoch is chosen.
        params: Rounds, passes, prices and optimiser.
        grpo: Group size, clip distances and weight of the KL.
        pointer: The price at which the best epoch is chosen, and its unit.
        run: Seed, observer, and the file that keeps the state.
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
        # Drawn here, because the parts of a batch run in parallel, in no fixed order.
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
    """The cost of demonstrations, their price on dev, and the rewards without demonstrations."""

    def __init__(self, environment: Environment, pointer: PointerParams) -> None:
        """Keep the unit of the cost, and the price on dev."""
        self._environment, self._per, self.price = environment, pointer.price_per, pointer.price
        self._alone: dict[str, Tensor] = {}

    def alone(self, split: str, queries: Sequence[int]) -> Tensor:
        """Return the rewards of a split's queries without demonstrations, [n, 1, 1].

        The VLM is asked only the first time.
        """
        if split not in self._alone:
            found = self._environment.rewards_alone(queries)
            self._alone[split] = torch.from_numpy(found).view(-1, 1, 1)
        return self._alone[split]

    def state_dict(self) -> StateDict:
        """Return the rewards without demonstrations that are known so far."""
        return dict(self._alone)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the rewards from another bill."""
        self._alone = dict(state)

    def costs(self, groups: Groups) -> Tensor:
        """Return the cost of 0..T demonstrations in units of `price_per`, [n, G, T + 1]."""
        count, size, shots = groups.pointers.shape
        numbers = torch.arange(shots + 1.0).expand(count, size, -1)
        if self._per == "demonstration":
            return numbers
        ids = self._environment.example_ids(groups.queries, groups.pointers)
        asked = [query for query, group in zip(groups.queries, ids, strict=True) for _ in group]
        pointers = [pointer for group in ids for pointer in group]
        return self._environment.added_tokens(asked, pointers).view(count, size, -1)


class StopEvaluator(DevEvaluator):
    """Scores a policy on dev by what it shows when it may stop, with the price subtracted."""

    def __init__(
        self, environment: Environment, dev: Sequence[int], reference: Frozen, bill: Bill
    ) -> None:
        """Keep what is needed to evaluate a policy."""
        super().__init__(environment, dev, reference)
        self._bill = bill

    @torch.no_grad()
    def figures(self, policy: Policy, realised: Realised) -> Row:
        """Return the figures of every training, the return at the price, and how many are shown."""
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
    """Candidates, and their values at 0..T demonstrations, with each query's price subtracted."""

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
    # Detached: the loss of the head must not change the picks.
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
