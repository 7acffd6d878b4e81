"""Policies: distributions over pointers into a pool, given a query, behind one interface.

A kind of policy defines how queries and pools are encoded and what every candidate scores at every
step (`project`, `relate`, `scores`). Masking, normalisation and log-probs of pointers are the same
for all kinds, and are here. The kinds are in `residual.py`, `stateful.py` and `v2.py`; `kinds.py`
builds one from its configuration.

In shapes, B counts queries, G pointers of a query, T picks of a pointer, K examples of a pool, and
H is the width of the policy.
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
"""A size of features or layers; larger ones are refused before memory is allocated for them."""
PricePer = Literal["demonstration", "token"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Architecture of a policy; stored in its checkpoint.

    Attributes:
        kind: The kind of network.
        query_size: Dimensions of a query's features.
        candidate_size: Dimensions of a candidate's features.
        hidden: Width of the network.
        shots: Length of the longest pointer.
        logit_clip: For `stateful`: logits are clip * tanh(score / clip).
        layers: For `v2` and `residual`: number of cross-attention layers.
        temperature: For `v2` and `residual`: logits are cosines divided by this.
        dropout: Dropout in training mode (SFT and RCE; the others compare log-probs in eval mode).
        highest_price: Highest price that the stop head was trained with, in points of reward; 0:
            there is no stop head, and pointers are as long as is asked for.
        price_per: What the price is paid for: each demonstration, or each token that it adds.
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
        """Return the fields by name."""
        return asdict(self)


class Encoded(NamedTuple):
    """Queries and pools, encoded once for all steps.

    Attributes:
        query: The queries, [B, H].
        candidates: The candidates, [B, K, H].
        keys: The vectors whose products with a step's focus are the scores, [B, K, H].
        valid: bool [B, K], False for the padding of smaller pools.
        features: The queries' features as they came in, [B, query_size].
    """

    query: Tensor
    candidates: Tensor
    keys: Tensor
    valid: Tensor
    features: Tensor


class Steps(NamedTuple):
    """The distributions that the picks of pointers [B, G, T] were drawn from, as log-probabilities.

    Attributes:
        first: The first step, [B, 1, 1, K]. Nothing is picked before it, so it is the same for all
            pointers of a query.
        later: The other steps given the picks before them, [B, G, T - 1, K].
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
        """Keep the configuration, and build the stop head if it has one."""
        super().__init__()
        self.config = config
        self.stop = (
            StopHead(config.query_size, config.hidden, config.shots, config.highest_price)
            if config.highest_price
            else None
        )

    @abstractmethod
    def project(self, candidates: Tensor) -> Tensor:
        """Return the part of the encoding that does not depend on the query.

        So an example that is in many pools is projected only once.

        Args:
            candidates: Features, [..., candidate_size].

        Returns:
            [..., P], with P up to the kind of policy.
        """

    @abstractmethod
    def relate(self, queries: Tensor, projected: Tensor, valid: Tensor) -> Encoded:
        """Encode queries with their pools.

        Args:
            queries: Features of the queries, [B, query_size].
            projected: Pools of projected candidates, [B, K, P]; padding may be anything finite.
            valid: bool [B, K], False for padding.
        """

    def encode(self, queries: Tensor, candidates: Tensor, valid: Tensor | None = None) -> Encoded:
        """Encode queries with their pools.

        Args:
            queries: Features of the queries, [B, query_size].
            candidates: Features of the pools' examples, [B, K, candidate_size].
            valid: bool [B, K], False for padding; None: there is no padding.
        """
        if valid is None:
            valid = torch.ones(candidates.shape[:2], dtype=torch.bool, device=candidates.device)
        return self.relate(queries, self.project(candidates), valid)

    @abstractmethod
    def scores(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return the logits of all candidates at these steps, [B, G, len(steps), K], unmasked.

        Steps are counted from 0; step s may depend on the first s picks of the pointers [B, G, T].
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
        """Return only the distribution of the step after pointers [B, G, T], [B, G, K]."""
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
            prices: Price for each query, [B], in the unit with which the head was trained.

        Raises:
            ValueError: This policy has no stop head.
        """
        if self.stop is None:
            raise ValueError("this policy does not decide when to stop")
        picked = picked_before(encoded.keys, pointers[:, :, :-1])
        odds: Tensor = self.stop(encoded.features, picked, log_probs, pointers, prices)
        return odds

    def _steps(self, encoded: Encoded, pointers: Tensor, count: int) -> Steps:
        """Return the first `count` steps.

        In training mode all pointers of a query share the dropout mask of the first step.
        """
        if count > self.config.shots:
            raise ValueError(f"{count} picks, but the policy is made for {self.config.shots}")
        first = self._distributions(encoded, pointers[:, :1, :0], range(1))
        return Steps(first, self._distributions(encoded, pointers, range(1, count)))

    def _distributions(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return log-probabilities [B, G, len(steps), K]; step 0 must be asked for by itself."""
        logits = self.scores(encoded, pointers, steps)
        if steps.stop > 1:
            logits = logits.scatter(-1, _closed(pointers, steps), -math.inf)
        if not encoded.valid.all():
            logits = logits.masked_fill(~encoded.valid[:, None, None], -math.inf)
        return logits.log_softmax(-1)


def _closed(pointers: Tensor, steps: range) -> Tensor:
    """Return the positions that are picked before each step s >= 1, [B, G, len(steps), T].

    These are the first s picks of the pointers; the rest is filled with the first pick.
    """
    picks = pointers[:, :, None, : steps.stop - 1]
    device = pointers.device
    before = (
        torch.arange(steps.stop - 1, device=device) < torch.tensor(steps, device=device)[:, None]
    )
    return torch.where(before, picks, picks[..., :1])


def uniform_log_prob(sizes: Tensor, shots: int) -> Tensor:
    """Return the log-probs of the picks of a uniform pointer, [B, shots], for pool sizes [B]."""
    return -(sizes.unsqueeze(-1) - torch.arange(shots)).float().log()
