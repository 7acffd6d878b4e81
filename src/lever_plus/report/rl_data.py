"""What is in the RL data: headroom, and the candidates' rewards by how they were generated."""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lever_plus.config.reward import RewardParams
from lever_plus.config.rl_data import GenMethod
from lever_plus.data.pools import Pools
from lever_plus.training.groups import groups_from_records
from lever_plus.training.rl_data.headroom import Headroom
from lever_plus.training.rl_data.records import QueryRecord


def headroom_rows(found: Headroom) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of every line of the headroom table."""
    yield "accuracy of all candidates", f"{100 * found.accuracy:.1f}"
    for count, best in found.oracle.items():
        yield f"best of {count}", f"{100 * best:.1f}"
    yield "standard deviation inside groups", f"{100 * found.spread:.1f}"
    yield "groups without a right candidate", f"{found.all_wrong:.1%}"
    yield "groups without a wrong one", f"{found.all_right:.1%}"
    yield "groups with both", f"{found.mixed:.1%}"
    yield "groups that teach nothing (equal at every shot)", f"{found.flat:.1%}"
    for method, share in found.positives.items():
        yield f"right candidates from {method}", f"{share:.1%}"


def rewards_by_method(
    records: Iterable[QueryRecord], pools: Pools, reward: RewardParams
) -> Mapping[str, NDArray[np.float64]]:
    """Return {gen_method: rewards of its candidates, weighted over shots}, as training sees them.

    Raises:
        PointerError, UserError: See `groups_from_records`.
    """
    known = get_args(GenMethod)
    sizes, methods = array("q"), array("b")

    def noted() -> Iterator[QueryRecord]:
        for record in records:
            sizes.append(len(record.candidates))
            methods.extend(known.index(candidate.gen_method) for candidate in record.candidates)
            yield record

    groups = groups_from_records(noted(), pools, reward)
    weights = groups.rewards.new_tensor(reward.shot_weights[: reward.trained_shots])
    totals = (groups.rewards @ (weights / weights.sum())).double().numpy()
    # A group is padded at its end.
    values = totals[np.arange(totals.shape[1]) < np.array(sizes)[:, None]]
    numbers = np.array(methods)
    found = {method: values[numbers == number] for number, method in enumerate(known)}
    return {method: rewards for method, rewards in sorted(found.items()) if len(rewards)}
