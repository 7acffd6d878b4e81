"""Candidate pointers for the RL data: from beam search, from sampling, and at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lever_plus.params import RlDataParams
from lever_plus.policy.decoding import Decoded, beam, sample, uniform
from lever_plus.policy.network import Selector
from lever_plus.rl.environment import DECODE_BATCH, Environment
from lever_plus.rl.records import GenMethod


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pointer (example ids) before it is scored."""

    pointer: tuple[int, ...]
    gen_method: GenMethod
    temperature: float | None
    step_log_probs: tuple[float, ...]


@torch.no_grad()
def propose(
    environment: Environment,
    policy: Selector,
    queries: Sequence[int],
    params: RlDataParams,
    seed: int,
) -> list[list[Proposal]]:
    """Propose the candidates of every query, as `params` counts them.

    A pointer that two generators propose stands twice here; groups drop the later one.
    """
    policy.eval()
    generator = torch.Generator().manual_seed(seed)
    proposals: list[list[Proposal]] = []
    for start in range(0, len(queries), DECODE_BATCH):
        batch = queries[start : start + DECODE_BATCH]
        encoded, shots = environment.encode(policy, batch), environment.shots
        groups: list[list[Proposal]] = [[] for _ in batch]
        if params.beam:
            decoded = beam(policy, encoded, shots, params.beam)
            _extend(groups, environment, batch, decoded, "beam", None)
        for temperature, count in params.samples.items():
            tau = float(temperature)
            decoded = sample(policy, encoded, shots, count, tau, generator)
            _extend(groups, environment, batch, decoded, "sample", tau)
        if params.random:
            decoded = uniform(encoded, shots, params.random, generator)
            _extend(groups, environment, batch, decoded, "random", None)
        proposals += groups
    return proposals


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
