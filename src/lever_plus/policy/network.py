"""Policies: distributions over pointers into a pool, given a query, behind one interface.

A kind of policy says how queries and pools are encoded and what every candidate scores at every
step (`encode`, `scores`); masking, normalisation and log-probs of pointers are the same for all and
stand here. `residual.py`, `stateful.py` and `v2.py` hold the kinds, `kinds.py` builds one from its
configuration.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from lever_plus.files.checking import STRICT
from lever_plus.policy.picked import picked_before
from lever_plus.policy.stop import StopHead

Size = Annotated[int, Field(ge=1, le=2**20)]
"""Of features and layers: what no network has is refused before a number of it is allocated."""
PricePer = Literal["demonstration", "token"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Architecture of a policy; stored in its checkpoint.

    Attributes:
        kind: Which network.
        query_size: Dimensions of a query's features.
        candidate_size: Dimensions of a candidate's features.
        hidden: Width.
        shots: Longest pointer.
        logit_clip: Of `stateful`: logits are clip * tanh(score / clip).
        layers: Of `v2` and `residual`: cross-attention layers.
        temperature: Of `v2` and `residual`: logits are cosines over this.
        dropout: Dropout in training mode (SFT and RCE; the others compare log-probs in eval mode).
        highest_price: That a stop head was trained with, in points of reward; 0: there is none, and
            pointers are as long as is asked for.
        price_per: What costs the price: a demonstration, or each token that it adds to a prompt.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: Literal["residual", "stateful", "v2"]
    query_size: Size
    candidate_size: Size
    hidden: Size
    shots: Annotated[int, Field(ge=1, le=16)]
    logit_clip: Positive = 10.0
    layers: Annotated[int, Field(ge=1, le=1000)] = 1
    temperature: Positive = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    highest_price: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    price_per: PricePer = "demonstration"

    def as_dict(self) -> dict[str, int | float | str]:
        """Return the fields."""
        return asdict(self)


class Encoded(NamedTuple):
    """Queries and pools, encoded once for all steps.

    query: [B, H]; candidates: [B, K, H]; keys: what the scores are products with, [B, K, H];
    valid: bool [B, K], False where a smaller pool is padded; features: the queries' own, [B, Q].
    """

    query: Tensor
    candidates: Tensor
    keys: Tensor
    valid: Tensor
    features: Tensor


class Steps(NamedTuple):
    """The distributions that the picks of pointers [B, G, T] were drawn from, as log-probabilities.

    first: Of the first step, [B, 1, 1, K]: nothing is picked before it, so it is the same for all
    pointers of a query. later: Of the other steps, [B, G, T - 1, K], given the picks before.
    """

    first: Tensor
    later: Tensor

    def picked(self, pointers: Tensor) -> Tensor:
        """Return the log-probabilities of the picks, [B, G, T]."""
        first = self.first[:, 0, 0].gather(1, pointers[:, :, 0]).unsqueeze(-1)
        later = self.later.gather(-1, pointers[:, :, 1:].unsqueeze(-1)).squeeze(-1)
        return torch.cat([first, later], dim=2)

    def joined(self) -> Tensor:
        """Return all steps, [B, G, T, K]."""
        first = self.first.expand(-1, self.later.shape[1], -1, -1)
        return torch.cat([first, self.later], dim=2)


class Policy(nn.Module, ABC):
    """A policy over pointers into a pool, given a query."""

    def __init__(self, config: PolicyConfig) -> None:
        """Keep the configuration."""
        super().__init__()
        self.config = config
        self.stop = (
            StopHead(config.query_size, config.hidden, config.shots, config.highest_price)
            if config.highest_price
            else None
        )

    @abstractmethod
    def project(self, candidates: Tensor) -> Tensor:
        """Return what does not depend on the query, [..., P], of candidates [..., candidate_size].

        An example that stands in many pools is projected once.
        """

    @abstractmethod
    def relate(self, queries: Tensor, projected: Tensor, valid: Tensor) -> Encoded:
        """Encode queries with their pools.

        Args:
            queries: [B, query_size].
            projected: Pools of projected candidates, [B, K, P]; padding may hold anything finite.
            valid: Bool [B, K], False for padding.
        """

    def encode(self, queries: Tensor, candidates: Tensor, valid: Tensor | None = None) -> Encoded:
        """Encode queries [B, query_size] with pools [B, K, candidate_size]; None: no padding."""
        if valid is None:
            valid = torch.ones(candidates.shape[:2], dtype=torch.bool, device=candidates.device)
        return self.relate(queries, self.project(candidates), valid)

    @abstractmethod
    def scores(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return the logits of all candidates at these steps, [B, G, len(steps), K], unmasked.

        Steps count from 0: step s may depend on the first s picks of the pointers [B, G, T].
        """

    def step_log_probs(self, encoded: Encoded, pointers: Tensor) -> Tensor:
        """Return the distribution of every step of given pointers, and of the step after them.

        Args:
            encoded: B queries with pools of up to K.
            pointers: Positions in the pool, int [B, G, T]; T may be 0.

        Returns:
            Log-probabilities [B, G, S, K] with S = min(T + 1, shots): step s given the first s
            picks; picked positions and padding have -inf.
        """
        return self._steps(
            encoded, pointers, min(pointers.shape[2] + 1, self.config.shots)
        ).joined()

    def next_log_probs(self, encoded: Encoded, pointers: Tensor) -> Tensor:
        """Return the distribution of the step after given pointers [B, G, T] alone, [B, G, K]."""
        picks = pointers.shape[2]
        return self._distributions(encoded, pointers, range(picks, picks + 1))[:, :, 0]

    def steps(self, encoded: Encoded, pointers: Tensor) -> Steps:
        """Return the distributions of the picks of pointers [B, G, T], with G, T >= 1.

        Raises:
            ValueError: The pointers are longer than the policy's.
        """
        return self._steps(encoded, pointers, pointers.shape[2])

    def log_probs(self, encoded: Encoded, pointers: Tensor) -> Tensor:
        """Return the log-probability of every pick of the pointers, [B, G, T], with G, T >= 1."""
        return self.steps(encoded, pointers).picked(pointers)

    def stop_log_odds(
        self, encoded: Encoded, pointers: Tensor, log_probs: Tensor, prices: Tensor
    ) -> Tensor:
        """Return the log-odds of stopping after 0, 1, ..., T - 1 picks, [B, G, T].

        Args:
            encoded: B queries with pools of up to K.
            pointers: Positions in the pool, int [B, G, T].
            log_probs: The distributions of their picks, [B, G, T, K] (`Steps.joined`).
            prices: Of a demonstration, [B], in the unit that the head was trained with.

        Raises:
            ValueError: This policy has no stop head.
        """
        if self.stop is None:
            raise ValueError("this policy does not decide when to stop")
        picked = picked_before(encoded.keys, pointers[:, :, :-1])
        odds: Tensor = self.stop(encoded.features, picked, log_probs, pointers, prices)
        return odds

    def _steps(self, encoded: Encoded, pointers: Tensor, count: int) -> Steps:
        """Return the first `count` steps; in training mode they share the first's dropout mask."""
        if count > self.config.shots:
            raise ValueError(f"{count} picks, but the policy is made for {self.config.shots}")
        first = self._distributions(encoded, pointers[:, :1, :0], range(1))
        return Steps(first, self._distributions(encoded, pointers, range(1, count)))

    def _distributions(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return log-probabilities [B, G, len(steps), K]; step 0 stands alone."""
        logits = self.scores(encoded, pointers, steps)
        if steps.stop > 1:
            logits = logits.scatter(-1, _closed(pointers, steps), -math.inf)
        if not encoded.valid.all():
            logits = logits.masked_fill(~encoded.valid[:, None, None], -math.inf)
        return logits.log_softmax(-1)


def _closed(pointers: Tensor, steps: range) -> Tensor:
    """Return the positions that are picked before each step s >= 1, [B, G, len(steps), T].

    Those are the first s picks of the pointers; the first one stands in for what comes later.
    """
    picks = pointers[:, :, None, : steps.stop - 1]
    device = pointers.device
    before = (
        torch.arange(steps.stop - 1, device=device) < torch.tensor(steps, device=device)[:, None]
    )
    return torch.where(before, picks, picks[..., :1])


def uniform_log_prob(sizes: Tensor, shots: int) -> Tensor:
    """Return the log-probs of a uniform pointer's picks, [B, shots], from the pools' sizes [B]."""
    return -(sizes.unsqueeze(-1) - torch.arange(shots)).float().log()
