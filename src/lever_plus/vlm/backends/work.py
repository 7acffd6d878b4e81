"""Requests to a server as they are asked: in units that share a prompt, so many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from lever_plus.vlm.backends.chat import Chat
from lever_plus.vlm.prompt import Message
from lever_plus.vlm.request import Done, Kind, ignore

Result = TypeVar("Result", str, float)


class Asking(NamedTuple):
    """A prompt.

    Attributes:
        turns: Messages, every image as a data URL.
        answers: Distinct answers that are scored; none where one is asked for.
        where: Whose reply it is, for errors.
    """

    turns: list[Message]
    answers: Sequence[str]
    where: str


class Work(NamedTuple, Generic[Result]):
    """What is asked of a server.

    Attributes:
        kind: What is asked for.
        units: Numbers of requests with one prompt, each of them once.
        asking: Returns the prompt of a unit.
        ask: Asks for a unit's results.
    """

    kind: Kind
    units: Sequence[Sequence[int]]
    asking: Callable[[Sequence[int]], Asking]
    ask: Callable[[Chat, Sequence[int]], Awaitable[list[Result]]]

    async def run(
        self,
        chat: Chat,
        units: Iterable[Sequence[int]],
        at_once: int,
        done: Done[Result] = ignore,
    ) -> dict[int, Result]:
        """Return the results of some units by number; the first failure ends them all."""
        results: dict[int, Result] = {}
        waiting = iter(units)

        async def work() -> None:
            for unit in waiting:
                found = await self.ask(chat, unit)
                results.update(zip(unit, found, strict=True))
                done(unit, found)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())
        except ExceptionGroup as failed:  # not `except*`: 3.11.2 wraps what is raised in there
            raise failed.exceptions[0] from None
        return results
