"""Generators of candidate pointers: for the RL data, and fresh ones for a round of training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lever_plus.config.rl_data import GenMethod, RlDataParams
from lever_plus.features.neighbours import ranked
from lever_plus.features.similarities import MIXED, SIIR, STTR
from lever_plus.policy.decoding import Decoded, beam, sample, stochastic_beam, uniform
from lever_plus.policy.encoding import DECODE_BATCH
from lever_plus.policy.network import Encoded, Policy
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups

RETRIEVAL: Final = (STTR, SIIR, MIXED)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pointer (example ids) that is not scored yet, and how it was generated."""

    pointer: tuple[int, ...]
    gen_method: GenMethod
    temperature: float | None
    step_log_probs: tuple[float, ...] | None


@torch.no_grad()
def propose(
    environment: Environment,
    policy: Policy,
    queries: Sequence[int],
    params: RlDataParams,
    seed: int,
) -> Iterator[list[Proposal]]:
    """Yield the proposed candidates of every query, in the numbers that `params` asks for.

    A pointer that two generators propose is here twice; `Groups` keeps only the first.

    Args:
        environment: Pools, features and the number of shots.
        policy: The policy that proposes.
        queries: Query ids.
        params: How many candidates each generator proposes.
        seed: Of everything that is drawn.
    """
    policy.eval()
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(queries), DECODE_BATCH):
        batch = queries[start : start + DECODE_BATCH]
        encoded = environment.encode(policy, batch)
        groups: list[list[Proposal]] = [[] for _ in batch]
        for decoded, method, temperature in _generate(
            policy, encoded, environment.shots, params, generator
        ):
            _extend(groups, environment, batch, decoded, method, temperature)
        for group, query in zip(groups, batch, strict=True):
            group += _retrieved(environment, query, params.retrieval)
        yield from groups


def _generate(
    policy: Policy,
    encoded: Encoded,
    shots: int,
    params: RlDataParams,
    generator: torch.Generator,
) -> Iterator[tuple[Decoded, GenMethod, float | None]]:
    """Decode with every generator that `params` asks for."""
    if params.beam:
        yield beam(policy, encoded, shots, params.beam), "beam", None
    for temperature, count in params.samples.items():
        tau = float(temperature)
        yield sample(policy, encoded, shots, count, tau, generator), "sample", tau
    for temperature, count in params.stochastic_beam.items():
        tau = float(temperature)
        drawn = stochastic_beam(policy, encoded, shots, count, tau, generator)
        yield Decoded(drawn.pointers, drawn.log_probs), "stochastic_beam", tau
    if params.random:
        yield uniform(encoded, shots, params.random, generator), "random", None


def _retrieved(environment: Environment, query: int, count: int) -> list[Proposal]:
    """Return `count` pointers: the nearest examples by each similarity, then the next nearest."""
    pool, shots = environment.pools.of(query), environment.shots
    asked = environment.examples[query].query
    candidates = [environment.examples[i] for i in pool]
    features = environment.features
    orders = [ranked(name, features, asked, candidates) for name in RETRIEVAL if count]
    found = []
    for number in range(count):
        start = number // len(orders) * shots
        positions = orders[number % len(orders)][start : start + shots]
        found.append(Proposal(tuple(pool[i] for i in positions), "retrieval", None, None))
    return found


def _extend(
    groups: list[list[Proposal]],
    environment: Environment,
    queries: Sequence[int],
    decoded: Decoded,
    gen_method: GenMethod,
    temperature: float | None,
) -> None:
    pointers = environment.example_ids(queries, decoded.pointers)
    log_probs = decoded.log_probs.tolist()
    for group, ids, steps in zip(groups, pointers, log_probs, strict=True):
        group += [
            Proposal(pointer, gen_method, temperature, tuple(round(x, 6) for x in row))
            for pointer, row in zip(ids, steps, strict=True)
        ]


@torch.no_grad()
def fresh_groups(
    policy: Policy,
    environment: Environment,
    queries: Sequence[int],
    size: int,
    generator: torch.Generator,
) -> tuple[Groups, Tensor]:
    """Sample `size` candidates per query from the current policy, and score them.

    They are cut after the last shot with a weight above 0: later picks change no reward. Draws are
    independent and may repeat; all are kept, because each counts in an on-policy gradient.

    Returns:
        The groups, and the log-probs of their picks [n, G, T].
    """
    policy.eval()
    drawn, shots = [], len(environment.trained_weights)
    for start in range(0, len(queries), DECODE_BATCH):
        encoded = environment.encode(policy, queries[start : start + DECODE_BATCH])
        drawn.append(sample(policy, encoded, shots, size, 1.0, generator))
    pointers = torch.cat([decoded.pointers for decoded in drawn])
    ids = environment.example_ids(queries, pointers)
    rewards = environment.rewards(
        [query for query in queries for _ in range(size)],
        [pointer for group in ids for pointer in group],
        "fresh candidates",
    )
    groups = Groups(
        queries=tuple(queries),
        pointers=pointers,
        rewards=torch.from_numpy(rewards).view(pointers.shape),
        keep=torch.ones(pointers.shape[:2], dtype=torch.bool),
    )
    return groups, torch.cat([decoded.log_probs for decoded in drawn])
