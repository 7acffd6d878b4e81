"""Queries with their pools as one batch: distinct candidates once, smaller pools padded."""

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
        policy: Encodes.
        queries: Features [B, query_size].
        pools: Rows of each query's candidates, B arrays of at least one.
        candidates: Returns the features of rows, [n, candidate_size].
        projected: All rows as the policy projects them, where that is known; None projects the
            distinct ones.
    """
    sizes = np.array([len(pool) for pool in pools])
    places = np.arange(sizes.max()) < sizes[:, None]
    where = np.concatenate(pools)
    if projected is None:
        distinct, where = np.unique(where, return_inverse=True)
        projected = policy.project(torch.from_numpy(candidates(distinct)))
    index = np.zeros(places.shape, dtype=np.int64)  # padding repeats some candidate
    index[places] = where
    rows = projected.index_select(0, torch.from_numpy(index).flatten())
    return policy.relate(
        torch.from_numpy(queries), rows.view(*index.shape, -1), torch.from_numpy(places)
    )
