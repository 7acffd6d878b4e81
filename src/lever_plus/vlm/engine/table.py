"""Segments as the rows of one table of tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lever_plus.vlm.engine.features import Features, padded


class Segment(NamedTuple):
    """What one example or query adds to a prompt.

    features: features of its user turn and answer turn; query: number of tokens of the user turn
    and the generation prompt, which come first; answer: token ids of the answer, which follow.
    """

    features: Features
    query: int
    answer: tuple[int, ...]


class Table(NamedTuple):
    """The segments of n prepared examples, one per row, so that a batch is made by one indexing.

    features: [n, longest, ...], padded on the right; lengths: int [n], tokens of each segment;
    queries: int [n], tokens up to the answer; answers: int [n, longest answer], token ids;
    answer_lengths: int [n], tokens of each answer.
    """

    features: Features
    lengths: Tensor
    queries: Tensor
    answers: Tensor
    answer_lengths: Tensor

    def stretches(self, rows: Tensor, lengths: Tensor) -> Features:
        """Return the first max(lengths) tokens of some rows."""
        longest = int(lengths.max())
        return self.features.each(lambda values: values[rows, :longest])


def tabulate(segments: Sequence[Segment]) -> Table:
    """Return the table of one or more segments."""
    device = segments[0].features.embeds.device
    answers = [torch.tensor(s.answer, dtype=torch.long) for s in segments]
    return Table(
        features=padded([s.features for s in segments]),
        lengths=torch.tensor([len(s.features.embeds) for s in segments], device=device),
        queries=torch.tensor([s.query for s in segments], device=device),
        answers=pad_sequence(answers, batch_first=True).to(device),
        answer_lengths=torch.tensor([len(s.answer) for s in segments], device=device),
    )
