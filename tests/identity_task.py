"""A task that a policy can learn in seconds: the t-th pick should be the candidate with mark t."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lever_plus.config.reward import RewardParams
from lever_plus.data.examples import Example
from lever_plus.data.pools import Pools
from lever_plus.features.embeddings import Embeddings
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig
from lever_plus.selectors.infoscore import ScoredPrefix, best_sequences
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups, first_occurrences
from lever_plus.vlm.scorer import Asked, Scorer, ShotScore

SHOTS, POOL, NOISE = 3, 6, 3
Kind = Literal["residual", "stateful", "v2"]
TRAIN, DEV, CANDIDATES = 48, 16, 60


@dataclass
class MarkScorer:
    """Gives accuracy 1 at shot t if pick t has mark t, and remembers whom it was asked about."""

    marks: dict[int, int]
    asked: set[int] = field(default_factory=set)
    requests: int = 0

    def score(self, asked: Sequence[Asked], description: str) -> list[ShotScore]:
        """Score prompts without demonstrations: no answer is right."""
        assert description
        assert not any(one.demonstrations for one in asked)
        self.asked.update(one.example.question_id for one in asked)
        self.requests += len(asked)
        return [self._score(hit=False) for _ in asked]

    def prompt_tokens(self, asked: Sequence[Asked]) -> list[int]:
        """Return lengths: five for a question, ten for each demonstration."""
        return [5 + 10 * len(one.demonstrations) for one in asked]

    def score_pointers(
        self, examples: Sequence[Example], pointers: Sequence[Sequence[Example]], description: str
    ) -> list[list[ShotScore]]:
        assert description
        self.asked.update(example.question_id for example in examples)
        self.requests += sum(map(len, pointers))
        return [
            [self._score(self.marks[e.question_id] == t) for t, e in enumerate(p, start=1)]
            for p in pointers
        ]

    def rewards(self, pointers: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the accuracies, float [pointers, SHOTS]; remembers nothing."""
        hits = [[self.marks[i] == t for t, i in enumerate(p, start=1)] for p in pointers]
        return np.array(hits, dtype=np.float32)

    @staticmethod
    def _score(hit: bool) -> ShotScore:
        return ShotScore(answer=str(hit), vqa_correct=int(hit), vqa_acc_score=float(hit))


@dataclass(frozen=True)
class IdentityTask:
    """An environment with its queries and its scorer."""

    environment: Environment
    scorer: MarkScorer
    train: tuple[int, ...]
    dev: tuple[int, ...]

    def policy(self, dropout: float = 0.0, seed: int = 0, kind: Kind = "stateful") -> Policy:
        """Return an untrained policy; equal seeds give equal weights, whatever the dropout."""
        torch.manual_seed(seed)
        features = self.environment.embeddings
        sizes = features.query_size, features.candidate_size
        return build_policy(PolicyConfig(kind, *sizes, 16, SHOTS, dropout=dropout))

    def solution(self, query: int) -> tuple[int, ...]:
        """Return the pointer with accuracy 1 at every shot."""
        pool = self.environment.pools.of(query)
        return tuple(i for mark in (1, 2, 3) for i in pool if self.scorer.marks[i] == mark)

    def searches(self, beam: int = 2) -> dict[int, list[ScoredPrefix]]:
        """Return SFT data: beam searches for the share of picks with the right mark."""
        return {query: list(self._search(query, beam)) for query in self.train}

    def _search(self, query: int, beam: int) -> Iterator[ScoredPrefix]:
        pool, kept = self.environment.pools.of(query), [()]
        for _ in range(SHOTS):
            step = [self._scored(prefix, pool) for prefix in kept]
            kept = [sequence.pointer for sequence in best_sequences(step, beam)]
            yield from step

    def _scored(self, prefix: tuple[int, ...], pool: Sequence[int]) -> ScoredPrefix:
        rest = tuple(i for i in pool if i not in prefix)
        shares = self.scorer.rewards([(*prefix, i) for i in rest]).sum(1) / SHOTS
        return ScoredPrefix(prefix, rest, tuple(shares.tolist()))

    def groups(self, size: int, seed: int = 0) -> Groups:
        """Return groups of random candidates of the training queries, scored.

        Like those of RL data, they are cut after the last shot that has a weight.
        """
        generator = torch.Generator().manual_seed(seed)
        weights = torch.ones(len(self.train) * size, POOL)
        drawn = torch.multinomial(weights, SHOTS, generator=generator)
        pointers = drawn.view(len(self.train), size, SHOTS)
        ids = self.environment.example_ids(self.train, pointers)
        rewards = self.scorer.rewards([pointer for group in ids for pointer in group])
        shots = len(self.environment.trained_weights)
        return Groups(
            queries=self.train,
            pointers=pointers[..., :shots],
            rewards=torch.from_numpy(rewards).view(pointers.shape)[..., :shots],
            keep=first_occurrences(pointers[..., :shots]),
        )


def make_task() -> IdentityTask:
    """Return the task: pools of one candidate with each mark 1..3, and three without, shuffled."""
    rng = np.random.default_rng(0)
    train = tuple(range(TRAIN))
    dev = tuple(range(TRAIN, TRAIN + DEV))
    candidates = range(1000, 1000 + CANDIDATES)
    marks = {i: i % 6 if i % 6 <= SHOTS else 0 for i in candidates}
    of_mark = [[i for i in candidates if marks[i] == mark] for mark in range(SHOTS + 1)]
    pools = {}
    for query in (*train, *dev):
        drawn = [int(rng.choice(of_mark[mark])) for mark in (1, 2, 3)]
        drawn += [int(i) for i in rng.choice(of_mark[0], size=POOL - SHOTS, replace=False)]
        pools[query] = tuple(int(i) for i in rng.permutation(drawn))
    scorer = MarkScorer(marks)
    environment = Environment(
        pools=Pools(ids=pools, sha256="p" * 64),
        examples={i: _example(i) for i in (*train, *dev, *candidates)},
        embeddings=_embeddings([*train, *dev, *candidates], marks, rng),
        scorer=cast(Scorer, scorer),
        shots=SHOTS,
        reward=RewardParams(soft=1.0, clip=5.0, shot_weights=[1.0] * SHOTS),
    )
    return IdentityTask(environment, scorer, train, dev)


def _example(number: int) -> Example:
    name = f"image {number}"
    return Example(
        image=f"{name}.png",
        question=f"What is number {number}?",
        answer=str(number),
        answers=(str(number),) * 10,
        question_id=number,
        image_id=number,
        image_sha256=name,
    )


def _embeddings(ids: list[int], marks: dict[int, int], rng: np.random.Generator) -> Embeddings:
    """Return features whose answer part shows the mark; the other parts are noise."""
    image, question = rng.normal(size=(2, len(ids), NOISE)).astype(np.float32)
    shown = np.eye(SHOTS + 1, dtype=np.float32)[[marks.get(i, 0) for i in ids]]
    white = np.concatenate([question, image, shown], axis=1)
    unit = {"question": question, "image": image}
    rows = {example_id: row for row, example_id in enumerate(ids)}
    return Embeddings(rows, unit, white, query_size=2 * NOISE, space_sha256="e" * 64)
