"""Examples, pools and a VLM by formula, so small that everything can be tried."""

import zlib
from collections.abc import Sequence

from identity_task import IdentityTask
from lever_plus.data.examples import Example
from lever_plus.vlm.request import Request, VlmIdentity

ANSWERS = ("0", *("1",) * 2, *("2",) * 3, *("3",) * 4)
"""Human answers: each of these has a different accuracy."""


def example(number: int, image: str = "") -> Example:
    """Return an example, with an image of its own if none is named."""
    image = image or f"image {number}"
    return Example(
        image=f"{image}.png",
        question=f"What is {number}?",
        answer="3",
        answers=ANSWERS,
        question_id=number,
        image_sha256=image,
    )


def examples(numbers: Sequence[int]) -> list[Example]:
    """Return examples with these ids."""
    return [example(number) for number in numbers]


def ids(chosen: Sequence[Example]) -> list[int]:
    """Return the ids of examples."""
    return [one.question_id for one in chosen]


def uneven_pools(task: IdentityTask, queries: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Return the ids of the pools of queries, cut to 4, 5 or 6."""
    return {query: task.environment.pools.of(query)[: 4 + query % 3] for query in queries}


def of(task: IdentityTask, numbers: Sequence[int]) -> list[Example]:
    """Return the examples of the identity task with these ids."""
    return [task.environment.examples[number] for number in numbers]


class HashVlm:
    """Answers by a hash of the whole prompt, so that every pointer has another value."""

    identity = VlmIdentity(model="m", revision="r", dtype="d", prompt_hash="h", generation="g")

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        assert description
        return [str(self._number(request, "answer") % 7) for request in requests]

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        assert description
        assert all(request.answer == "3" for request in requests)
        return [-0.1 - 3 * (self._number(r, "likelihood") % 10007) / 10007 for r in requests]

    @staticmethod
    def _number(request: Request, kind: str) -> int:
        prompt = [kind, *ids(request.demonstrations), request.query.question]
        return zlib.crc32(repr(prompt).encode())
