"""Selectors that see the true answers find the same as trying everything."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from small_pools import ANSWERS, HashVlm, example, examples, ids, of

from identity_task import SHOTS, IdentityTask
from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.policy.decoding import sample
from lever_plus.selectors.base import select_each_shot
from lever_plus.selectors.best_of import BestOfSamples
from lever_plus.selectors.infoscore import (
    InfoScoreSearch,
    ScoredPrefix,
    ScoredSequence,
    beam_search,
    best_sequences,
)
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Asked, Scorer

POOLS = [examples(range(1, 6)), examples(range(3, 7))]
ASKED = examples((100, 101))
QUERIES = [one.query for one in ASKED]
EVERYTHING = 1000


def answered(task: IdentityTask, queries: tuple[int, ...]) -> list[Example]:
    """Return queries of the identity task with human answers of different accuracies."""
    return [replace(one, answers=ANSWERS, answer="3") for one in of(task, queries)]


def probability(query: Query, shown: tuple[Example, ...]) -> float:
    (value,) = HashVlm().log_likelihoods([Request(shown, query, "3")], description="one")
    return math.exp(value)


def info_score(query: Query, shown: tuple[Example, ...]) -> float:
    return probability(query, shown) - probability(query, ())


@pytest.mark.invariant
def test_the_search_ranks_sequences_by_infoscore_as_trying_all_does() -> None:
    asked = [(query, "3") for query in QUERIES]
    steps = beam_search(HashVlm(), asked, POOLS, shots=3, beam=EVERYTHING).kept
    for shot, found in enumerate(steps, start=1):
        for query, pool, sequences in zip(QUERIES, POOLS, found, strict=True):
            every = sorted(permutations(pool, shot), key=lambda p: -info_score(query, p))
            assert [sequence.examples for sequence in sequences] == every
            scores = [sequence.info_score for sequence in sequences]
            assert scores == pytest.approx([info_score(query, p) for p in every], abs=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("beam", [1, 2, 3])
def test_a_beam_grows_the_best_sequences_of_the_step_before(beam: int) -> None:
    asked = [(query, "3") for query in QUERIES]
    steps = beam_search(HashVlm(), asked, POOLS, shots=3, beam=beam).kept
    for query, pool, *found in zip(QUERIES, POOLS, *steps, strict=True):
        kept: list[tuple[Example, ...]] = [()]
        for sequences in found:
            grown = [(*shown, one) for shown in kept for one in pool if one not in shown]
            kept = sorted(grown, key=lambda shown: -info_score(query, shown))[:beam]
            assert [sequence.examples for sequence in sequences] == kept


def test_equal_scores_are_ordered_by_id() -> None:
    class Indifferent(HashVlm):
        def log_likelihoods(self, requests: list[Request], *, description: str) -> list[float]:
            assert description
            return [-1.0] * len(requests)

    found = beam_search(Indifferent(), [(QUERIES[0], "3")], [POOLS[0][::-1]], shots=2, beam=3)
    assert [ids(sequence.examples) for sequence in found.kept[1][0]] == [[1, 2], [1, 3], [1, 4]]
    assert {sequence.info_score for sequence in found.kept[1][0]} == {0.0}


@pytest.mark.invariant
def test_an_unbounded_search_selects_the_best_sequence_of_every_length() -> None:
    """Best pointers of different lengths need not begin alike, and here they do not."""
    search = InfoScoreSearch(HashVlm(), ASKED, beam=EVERYTHING)
    each = select_each_shot(search, QUERIES, POOLS, 3)
    for number, (query, pool) in enumerate(zip(QUERIES, POOLS, strict=True)):
        best = [
            max(permutations(pool, shot), key=lambda shown: info_score(query, shown))
            for shot in (1, 2, 3)
        ]
        assert [selections[number].examples for selections in each] == best
        assert search.select(query, pool, 3) == list(best[-1])
    assert any(each[0][n].examples != each[2][n].examples[:1] for n in range(len(QUERIES)))


@pytest.mark.invariant
@pytest.mark.parametrize("beam", [1, 2, 3, EVERYTHING])
def test_a_search_keeps_the_score_of_everything_that_it_asked_about(beam: int) -> None:
    """After every prefix that was extended, shortest first, each other example of the pool."""
    asked = [(query, "3") for query in QUERIES]
    found = beam_search(HashVlm(), asked, POOLS, shots=3, beam=beam)
    for number, (query, pool) in enumerate(zip(QUERIES, POOLS, strict=True)):
        known = {one.question_id: one for one in pool}
        kept = [s.examples for step in found.kept[:-1] for s in step[number]]
        assert [each.prefix for each in found.scored[number]] == [(), *map(tuple, map(ids, kept))]
        for each in found.scored[number]:
            assert list(each.candidates) == [i for i in ids(pool) if i not in each.prefix]
            shown = [tuple(known[i] for i in (*each.prefix, last)) for last in each.candidates]
            expected = [info_score(query, pointer) for pointer in shown]
            assert each.info_scores == pytest.approx(expected, abs=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("beam", [1, 2, 3, EVERYTHING])
def test_the_best_sequences_of_a_search_are_those_that_it_kept(beam: int) -> None:
    asked = [(query, "3") for query in QUERIES]
    found = beam_search(HashVlm(), asked, POOLS, shots=3, beam=beam)
    for scored, kept in zip(found.scored, found.kept[-1], strict=True):
        best = [ScoredSequence(tuple(ids(s.examples)), s.info_score) for s in kept]
        assert best_sequences(scored, beam) == best


def test_of_equal_sequences_the_smaller_ids_are_the_best() -> None:
    scored = [ScoredPrefix((2,), (3, 1), (0.5, 0.5)), ScoredPrefix((1,), (2, 3), (0.5, 0.7))]
    best = [ScoredSequence((1, 3), 0.7), ScoredSequence((1, 2), 0.5), ScoredSequence((2, 1), 0.5)]
    assert best_sequences(scored, 3) == best


def test_without_the_true_answer_there_is_no_search() -> None:
    search = InfoScoreSearch(HashVlm(), ASKED[:1], beam=2)
    with pytest.raises(UserError, match=r"needs the true answer of 'What is 101\?' \(image 101"):
        search.select(QUERIES[1], POOLS[1], 2)


@pytest.mark.invariant
def test_the_best_of_many_samples_is_the_best_there_is(
    task: IdentityTask, learned: LearnedSelector
) -> None:
    """At every shot independently: with so many samples, every pointer is among them."""
    scorer, queries = Scorer(HashVlm()), task.dev[:4]
    asked = answered(task, queries)
    pools = [of(task, task.environment.pools.of(query)[:4]) for query in queries]
    best = BestOfSamples(learned, scorer, asked, count=3000, seed=0, temperature=20.0)
    each = select_each_shot(best, [e.query for e in asked], pools, SHOTS)
    nested = []
    for number, (one, pool) in enumerate(zip(asked, pools, strict=True)):
        found = [selections[number].examples for selections in each]
        for shot, chosen in enumerate(found, start=1):
            every = [Asked(shown, one) for shown in permutations(pool, shot)]
            most = max(score.vqa_acc_score for score in scorer.score(every))
            (score,) = scorer.score([Asked(chosen, one)])
            assert score.vqa_acc_score == most
            assert most > 0
        nested.append(found[0] == found[-1][:1])
    assert not all(nested)


@pytest.mark.invariant
def test_the_best_of_few_samples_is_the_first_best_of_them(
    task: IdentityTask, learned: LearnedSelector
) -> None:
    scorer, queries = Scorer(HashVlm()), task.dev[:8]
    asked = answered(task, queries)
    pools = [of(task, task.environment.pools.of(query)) for query in queries]
    best = BestOfSamples(learned, scorer, asked, count=5, seed=3)
    each = select_each_shot(best, [e.query for e in asked], pools, SHOTS)
    encoded = task.environment.encode(learned.policy, queries)
    generator = torch.Generator().manual_seed(3)
    drawn = sample(learned.policy, encoded, SHOTS, 5, 1.0, generator).pointers.tolist()
    for number, (one, pool) in enumerate(zip(asked, pools, strict=True)):
        pointers = [tuple(pool[place] for place in pointer) for pointer in drawn[number]]
        for shot, selections in enumerate(each, start=1):
            scores = scorer.score([Asked(pointer[:shot], one) for pointer in pointers])
            accuracies = [score.vqa_acc_score for score in scores]
            first = pointers[accuracies.index(max(accuracies))]
            assert selections[number].examples == first[:shot]
    other = BestOfSamples(learned, scorer, asked, count=5, seed=4)
    assert select_each_shot(other, [e.query for e in asked], pools, SHOTS) != each


def test_without_the_true_answers_there_is_no_best(
    task: IdentityTask, learned: LearnedSelector
) -> None:
    best = BestOfSamples(learned, Scorer(HashVlm()), [], count=4, seed=0)
    unknown = example(100)
    with pytest.raises(UserError, match="best of 4 samples needs the true answers to 'What is 100"):
        best.select(unknown.query, of(task, task.environment.pools.of(task.dev[0])), 2)
