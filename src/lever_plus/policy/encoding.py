"""Encodes queries with their pools as one batch: each candidate once, smaller pools padded."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lever_plus.policy.network import Encoded, Policy

DECODE_BATCH = 256
"""Queries that are decoded together."""
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


def encode_pools(
    policy: Policy,
    queries: Floats,
    pools: Sequence[Rows],
    candidates: Callable[[Rows], Floats],
    projected: Tensor | None = None,
) -> Encoded:
    """Encode queries and their pools; smaller pools are padded and masked.

    Args:
        policy: The policy that encodes them.
        queries: Features of the queries, float32 [B, query_size].
        pools: Rows of each query's candidates: B arrays of int64, none of them empty.
        candidates: Function from rows to features, float32 [rows, candidate_size].
        projected: The policy's projections of all rows, [rows, P], if they are known; None: the
            rows in the pools are projected here, each once.

    Returns:
        B queries with pools of K, the size of the largest pool.
    """
    sizes = np.array([len(pool) for pool in pools])
    places = np.arange(sizes.max()) < sizes[:, None]
    where = np.concatenate(pools)
    if projected is None:
        distinct, where = np.unique(where, return_inverse=True)
        projected = policy.project(torch.from_numpy(candidates(distinct)))
    index = np.zeros(places.shape, dtype=np.int64)  # padding repeats the first row
    index[places] = where
    rows = projected.index_select(0, torch.from_numpy(index).flatten())
    return policy.relate(
        torch.from_numpy(queries), rows.view(*index.shape, -1), torch.from_numpy(places)
    )
