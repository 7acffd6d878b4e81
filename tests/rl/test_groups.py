"""Groups belong to query ids, keep their losers, and notice repeats."""

import pytest
import torch
from torch.testing import assert_close

from lever_plus.data.pool import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.rl import losses
from lever_plus.rl.groups import Groups, first_occurrences, groups_from_records
from lever_plus.rl.records import Candidate, QueryRecord, Shot

POOLS = Pools(ids={7: (10, 11, 12, 13), 3: (13, 12, 10, 14), 5: (20, 21, 22, 23)}, sha256="p" * 64)


def candidate(pointer: tuple[int, ...], *scores: float) -> Candidate:
    shots = tuple(
        Shot(shot=k, answer="", vqa_correct=1 if s else 0, vqa_acc_score=s, fallback=False)
        for k, s in enumerate(scores, start=1)
    )
    steps = (-1.0,) * len(pointer)
    return Candidate(
        pointer=pointer, gen_method="random", temperature=None, step_log_probs=steps, shots=shots
    )


def record(query: int, *candidates: Candidate) -> QueryRecord:
    pool = POOLS.of(query)
    return QueryRecord(query_id=query, question_id=query, pool=pool, candidates=candidates)


def read_groups(records: list[QueryRecord]) -> Groups:
    return groups_from_records(records, POOLS, (0.5, 0.5))


@pytest.fixture
def records() -> list[QueryRecord]:
    return [
        record(7, candidate((12, 10), 0.0, 0.0), candidate((11, 13), 1.0, 0.6)),
        record(
            3,
            candidate((12, 10), 0.3, 1.0),
            candidate((10, 12), 0.9, 0.0),
            candidate((12, 10), 0.3, 1.0),
            candidate((14, 13), 0.0, 0.0),
        ),
        record(5, candidate((20, 23), 0.6, 0.9)),
    ]


def test_pointers_become_positions_in_the_pool_of_their_own_query(
    records: list[QueryRecord],
) -> None:
    groups = read_groups(records)
    assert groups.queries == (7, 3, 5)
    assert groups.pointers[0, :2].tolist() == [[2, 0], [1, 3]]
    assert groups.pointers[1].tolist() == [[1, 2], [2, 1], [1, 2], [3, 0]]
    assert groups.pointers[2, 0].tolist() == [0, 3]


def test_rewards_are_the_accuracies_by_shot(records: list[QueryRecord]) -> None:
    groups = read_groups(records)
    assert_close(groups.rewards[0, :2], torch.tensor([[0.0, 0.0], [1.0, 0.6]]))
    assert_close(groups.rewards[1, 1], torch.tensor([0.9, 0.0]))


def test_padding_and_repeats_are_not_kept_and_losers_are(records: list[QueryRecord]) -> None:
    assert read_groups(records).keep.tolist() == [
        [True, True, False, False],
        [True, True, False, True],
        [True, False, False, False],
    ]


def test_groups_follow_the_query_id_whatever_the_order_of_the_records(
    records: list[QueryRecord],
) -> None:
    def by_query(groups: Groups) -> dict[int, list[object]]:
        parts = groups.pointers.tolist(), groups.rewards.tolist(), groups.keep.tolist()
        return {q: list(row) for q, *row in zip(groups.queries, *parts, strict=True)}

    expected = by_query(read_groups(records))
    assert by_query(read_groups(records[::-1])) == expected
    shuffled = read_groups(records).rows(torch.tensor([2, 0, 1]))
    assert shuffled.queries == (5, 7, 3)
    assert by_query(shuffled) == expected


@pytest.mark.invariant
def test_the_length_of_the_padding_changes_no_loss(records: list[QueryRecord]) -> None:
    def loss(groups: Groups) -> torch.Tensor:
        return losses.rce(
            -groups.pointers.double(), groups.rewards.double().sum(-1), groups.keep, 0.5
        )

    alone = torch.stack([loss(read_groups([r])) for r in records])
    assert_close(loss(read_groups(records)), alone.mean())


@pytest.mark.parametrize("pointer", [(12, 99), (13, 14), (12, 12)])
def test_a_pointer_outside_its_pool_is_refused(pointer: tuple[int, int]) -> None:
    """14 is in another query's pool: only the query's own counts."""
    with pytest.raises(PointerError, match=rf"query 7: .*{pointer[1]}"):
        read_groups([record(7, candidate(pointer, 0.0, 0.0))])


def test_only_the_first_of_equal_pointers_is_a_first_occurrence() -> None:
    pointers = torch.tensor(
        [[[0, 1], [1, 0], [0, 1], [0, 1]], [[2, 3], [2, 3], [2, 1], [1, 3]]],
    )
    assert first_occurrences(pointers).tolist() == [
        [True, True, False, False],
        [True, False, True, True],
    ]


def last_shot_only(score: float) -> Candidate:
    shot = Shot(shot=2, answer="", vqa_correct=1, vqa_acc_score=score, fallback=False)
    return Candidate(
        pointer=(12, 10), gen_method="beam", temperature=None, step_log_probs=None, shots=(shot,)
    )


def test_imported_data_need_scores_only_at_shots_that_weigh_something() -> None:
    records = [record(7, last_shot_only(0.6))]
    rewards = groups_from_records(records, POOLS, (0.0, 1.0)).rewards
    assert_close(rewards[0, 0], torch.tensor([0.0, 0.6]))
    with pytest.raises(UserError, match="query 7: the RL data have no score at shot 1"):
        groups_from_records(records, POOLS, (0.5, 0.5))


def test_pointers_of_another_length_than_the_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"has 2 ICDs, but reward.shot_weights has 3"):
        groups_from_records([record(7, last_shot_only(0.6))], POOLS, (0.0, 0.0, 1.0))
