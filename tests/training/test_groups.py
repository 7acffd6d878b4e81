"""Groups belong to query ids, keep candidates with low rewards, and mark repeats."""

import pytest
import torch
from torch.testing import assert_close

from lever_plus.config.reward import RewardParams
from lever_plus.config.rl_data import GenMethod
from lever_plus.data.pools import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.training import losses
from lever_plus.training.groups import Candidates, Groups, first_occurrences, groups_from_records
from lever_plus.training.rl_data.records import Candidate, QueryRecord, Shot

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


def soft(weights: list[float]) -> RewardParams:
    return RewardParams(soft=1.0, clip=5.0, shot_weights=weights)


def read_groups(records: list[QueryRecord]) -> Groups:
    return groups_from_records(records, POOLS, soft([0.5, 0.5]))


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


@pytest.mark.invariant
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
        return losses.rce(-groups.pointers.double(), groups.rewards.double(), groups.keep, 0.5)

    alone = torch.stack([loss(read_groups([r])) for r in records])
    assert_close(loss(read_groups(records)), alone.mean())


@pytest.mark.invariant
@pytest.mark.parametrize("pointer", [(12, 99), (13, 14), (12, 12)])
def test_a_pointer_outside_its_pool_is_refused(pointer: tuple[int, int]) -> None:
    """14 is in another query's pool; only the query's own pool counts."""
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
    rewards = groups_from_records(records, POOLS, soft([0.0, 1.0])).rewards
    assert_close(rewards[0, 0], torch.tensor([0.0, 0.6]))
    with pytest.raises(UserError, match="query 7: the RL data have no score at shot 1"):
        groups_from_records(records, POOLS, soft([0.5, 0.5]))


def test_pointers_of_another_length_than_the_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"has 2 demonstrations, but reward.shot_weights has 3"):
        groups_from_records([record(7, last_shot_only(0.6))], POOLS, soft([0.0, 0.0, 1.0]))


def of(method: GenMethod, pointer: tuple[int, ...], *scores: float) -> Candidate:
    return candidate(pointer, *scores).model_copy(update={"gen_method": method})


@pytest.fixture
def mixed() -> list[QueryRecord]:
    return [
        record(7, of("beam", (12, 10), 0.0, 0.3), of("random", (11, 13), 1.0, 0.6)),
        record(3, of("random", (12, 10), 0.3, 1.0)),
        record(5, of("sample", (20, 23), 0.6, 0.9), of("beam", (21, 20), 0.0, 0.9)),
    ]


def test_only_candidates_of_the_methods_asked_for_are_taken(mixed: list[QueryRecord]) -> None:
    """Queries without one are left out, and the largest group left says how wide the rows are."""
    groups = groups_from_records(mixed, POOLS, soft([0.5, 0.5]), ["beam"])
    assert groups.queries == (7, 5)
    assert groups.pointers.tolist() == [[[2, 0]], [[1, 0]]]
    assert_close(groups.rewards, torch.tensor([[[0.0, 0.3]], [[0.0, 0.9]]]))
    assert groups.keep.all()
    both = groups_from_records(mixed, POOLS, soft([0.5, 0.5]), ["beam", "sample"])
    assert both.keep.tolist() == [[True, False], [True, True]]
    everything = groups_from_records(mixed, POOLS, soft([0.5, 0.5]))
    assert everything.keep.sum() == 5


def test_methods_that_leave_nothing_are_an_error(mixed: list[QueryRecord]) -> None:
    with pytest.raises(
        UserError, match=r"from augmented, retrieval: change rl\.filter_gen_methods"
    ):
        groups_from_records(mixed, POOLS, soft([0.5, 0.5]), ["retrieval", "augmented"])


GT_PROB = RewardParams(hard=1.0, gt_prob=2.0, clip=5.0, shot_weights=[0.5, 0.5])
LOG_PROB = RewardParams(bias=-1.0, hard=2.0, log_prob=0.5, clip=5.0, shot_weights=[0.5, 0.5])


def with_gt_probs(source: Candidate, *values: float) -> Candidate:
    shots = tuple(
        shot.model_copy(update={"vqa_gt_prob": value})
        for shot, value in zip(source.shots, values, strict=True)
    )
    return source.model_copy(update={"shots": shots})


def test_rewards_are_made_of_the_stored_scores() -> None:
    records = [record(7, with_gt_probs(candidate((12, 10), 0.0, 0.3), 0.25, 0.5))]
    rewards = groups_from_records(records, POOLS, GT_PROB).rewards
    assert_close(rewards[0, 0], torch.tensor([0.0 + 2 * 0.25, 1.0 + 2 * 0.5]))


def test_a_score_that_the_reward_needs_and_the_data_lack_is_named(
    records: list[QueryRecord],
) -> None:
    with pytest.raises(
        UserError, match=r"query 7: the RL data have no vqa_gt_prob.*rl_data\.scores"
    ):
        groups_from_records(records, POOLS, GT_PROB)


def test_a_reward_with_log_prob_adds_the_pointer_s_own_at_every_shot() -> None:
    """It may be stored step by step (-1 and -1 here) or as a whole."""
    whole = candidate((11, 13), 0.3, 0.0).model_copy(
        update={"step_log_probs": None, "log_prob": -3.0}
    )
    groups = groups_from_records([record(7, candidate((12, 10), 0.0, 0.3), whole)], POOLS, LOG_PROB)
    assert_close(groups.rewards[0, 0], torch.tensor([-2.0, 0.0]))
    assert_close(groups.rewards[0, 1], torch.tensor([-0.5, -2.5]))


def test_a_reward_with_log_prob_refuses_candidates_without_one() -> None:
    unknown = candidate((12, 10), 0.0, 0.3).model_copy(update={"step_log_probs": None})
    with pytest.raises(UserError, match=r"query 7: a candidate has no log-probability"):
        groups_from_records([record(7, unknown)], POOLS, LOG_PROB)


def test_further_candidates_join_their_queries_and_repeats_are_not_kept(
    mixed: list[QueryRecord],
) -> None:
    groups = groups_from_records(mixed, POOLS, soft([0.5, 0.5]))
    more = Groups(
        queries=groups.queries,
        pointers=torch.tensor([[[2, 0], [3, 2], [3, 2]], [[0, 1], [1, 2], [2, 3]], [[0, 3]] * 3]),
        rewards=torch.full((3, 3, 2), 0.5),
        keep=torch.ones(3, 3, dtype=torch.bool),
    )
    joined = groups.with_candidates(more)
    assert joined.queries == groups.queries
    assert joined.pointers[:, :2].equal(groups.pointers)
    assert joined.pointers[:, 2:].equal(more.pointers)
    assert joined.rewards[:, 2:].equal(more.rewards)
    assert joined.keep.tolist() == [
        [True, True, False, True, False],
        [True, False, True, False, True],
        [True, True, False, False, False],
    ]


def test_candidates_of_other_queries_cannot_join(mixed: list[QueryRecord]) -> None:
    groups = groups_from_records(mixed, POOLS, soft([0.5, 0.5]))
    with pytest.raises(ValueError, match="candidates of other queries"):
        groups.with_candidates(groups.rows(torch.tensor([1, 0, 2])))


def test_candidates_come_back_from_their_state(mixed: list[QueryRecord]) -> None:
    """They replace other candidates of the same queries, and have lost their log-probs."""
    groups = groups_from_records(mixed, POOLS, soft([0.5, 0.5]))
    fresh = Candidates(groups.with_candidates(groups), torch.rand(3, 10, 2))
    listed = Candidates(groups)
    other = Candidates(groups, torch.rand(3, 5, 2))
    for kept in (fresh, listed):
        other.load_state_dict(kept.state_dict())
        assert other.groups.queries == groups.queries
        assert other.state_dict().keys() == kept.state_dict().keys()
        for name, tensor in kept.state_dict().items():
            assert other.state_dict()[name].equal(tensor), name
        assert (other.log_probs is None) == (kept is listed)
