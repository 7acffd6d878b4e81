"""The requests of a run to servers, in units that share a prompt, several units at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from lever_plus.vlm.backends.chat import Chat
from lever_plus.vlm.backends.servers import Shares
from lever_plus.vlm.prompt import Message
from lever_plus.vlm.request import Done, Kind, ignore

Result = TypeVar("Result", str, float)


class Asking(NamedTuple):
    """A prompt to ask a server.

    Attributes:
        turns: Messages, each image as a data URL.
        answers: Distinct answers to score; none if an answer is to be generated.
        what: What errors call the reply to it.
    """

    turns: list[Message]
    answers: Sequence[str]
    what: str


class Work(NamedTuple, Generic[Result]):
    """The requests of a run, and how to ask them.

    Attributes:
        kind: Whether answers or log-likelihoods are asked for.
        units: The numbers of requests with the same prompt, for each prompt.
        begins: Returns a text for what a unit's prompt begins with, see `servers.Shares`.
        asking: Returns the prompt of a unit.
        ask: Asks for the results of a unit.
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
        """Return the results of some units by number of request; a failure ends all of them.

        Args:
            chats: For each server, a function that begins a conversation.
            urls: Base URLs of the servers.
            units: The units to ask.
            at_once: How many units are asked at once on each server.
            done: Called with the results of each unit.
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
        except (
            ExceptionGroup
        ) as failed:  # not `except*`: Python 3.11.2 wraps exceptions raised inside it
            raise failed.exceptions[0] from None
        return results
