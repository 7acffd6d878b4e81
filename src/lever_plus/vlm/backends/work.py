"""Requests to a server as they are asked: in units that share a prompt, so many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from lever_plus.vlm.backends.chat import Chat
from lever_plus.vlm.backends.servers import Shares
from lever_plus.vlm.prompt import Message
from lever_plus.vlm.request import Done, Kind, ignore

Result = TypeVar("Result", str, float)


class Asking(NamedTuple):
    """A prompt.

    Attributes:
        turns: Messages, every image as a data URL.
        answers: Distinct answers that are scored; none where one is asked for.
        what: What its reply is called in errors.
    """

    turns: list[Message]
    answers: Sequence[str]
    what: str


class Work(NamedTuple, Generic[Result]):
    """What is asked of servers.

    Attributes:
        kind: What is asked for.
        units: Numbers of requests with one prompt, each of them once.
        begins: Returns what a unit's prompt begins with, see `servers.Shares`.
        asking: Returns the prompt of a unit.
        ask: Asks for a unit's results.
    """

    kind: Kind
    units: Sequence[Sequence[int]]
    begins: Callable[[Sequence[int]], str]
    asking: Callable[[Sequence[int]], Asking]
    ask: Callable[[Chat, Sequence[int]], Awaitable[list[Result]]]

    async def run(
        self,
        chats: Sequence[Callable[[], Chat]],
        urls: Sequence[str],
        units: Sequence[Sequence[int]],
        at_once: int,
        done: Done[Result] = ignore,
    ) -> dict[int, Result]:
        """Return the results of some units by number; the first failure ends them all.

        Args:
            chats: Begins a conversation with each server.
            urls: The servers.
            units: Some of the units.
            at_once: Units under way at once, at each server.
            done: Called with every unit's results.
        """
        results: dict[int, Result] = {}
        shares = Shares([self.begins(unit) for unit in units], urls)

        async def work(server: int) -> None:
            chat = chats[server]()
            while (place := shares.next(server)) is not None:
                found = await self.ask(chat, units[place])
                results.update(zip(units[place], found, strict=True))
                done(units[place], found)

        try:
            async with asyncio.TaskGroup() as group:
                for server in range(len(urls)):
                    for _ in range(at_once):
                        group.create_task(work(server))
        except ExceptionGroup as failed:  # not `except*`: 3.11.2 wraps what is raised in there
            raise failed.exceptions[0] from None
        return results
