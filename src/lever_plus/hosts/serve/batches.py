"""Batches of questions from many clients, computed in a thread beside the event loop.

While a batch is computed, further questions wait, and the next batch takes all of them. So a single
client is answered at once, and fifty clients cost little more than one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any, Final, Generic, TypeVar

from lever_plus.errors import UserError

Item = TypeVar("Item")
Found = TypeVar("Found")
Made = TypeVar("Made")
WAITING: Final = 256
AT_ONCE: Final = 64
THREADS: Final = min(4, cpu_count() or 1)


class BusyError(UserError):
    """Too many questions are waiting already; the client should ask again later."""


class Batches(Generic[Item, Found]):
    """Answers questions in batches, in the order in which they came; belongs to one event loop."""

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Found | Exception]],
        waiting: int = WAITING,
        at_once: int = AT_ONCE,
    ) -> None:
        """Prepare the threads.

        Args:
            work: Answers several questions, each with a result or an exception; always runs in the
                same thread.
            waiting: Most questions that may be under way at the same time.
            at_once: Most questions in a batch.
        """
        self._work, self._most, self._at_once = work, waiting, at_once
        self._asked: deque[tuple[Item, asyncio.Future[Found]]] = deque()
        self._under_way = 0
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "selecting")
        self._others = ThreadPoolExecutor(THREADS, "preparing")

    async def __aenter__(self) -> "Batches[Item, Found]":
        """Count a question as under way, until the block ends.

        Raises:
            BusyError: Too many questions are under way.
        """
        if self._under_way >= self._most:
            raise BusyError(
                f"{self._most} questions are waiting already: ask again in a moment, or start a "
                "second server."
            )
        self._under_way += 1
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Make room for the next question."""
        self._under_way -= 1

    async def beside(self, made: Callable[..., Made], *arguments: Any) -> Made:
        """Call a function in a thread beside the event loop, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._others, made, *arguments)

    async def ask(self, item: Item) -> Found:
        """Return the answer to one question, or raise the exception that the work gave for it."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._asked.append((item, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    def close(self) -> None:
        """End the threads once they have finished what they are doing."""
        self._thread.shutdown(cancel_futures=True)
        self._others.shutdown(cancel_futures=True)

    async def _run(self) -> None:
        while self._asked:
            count = min(len(self._asked), self._at_once)
            batch = [self._asked.popleft() for _ in range(count)]
            # Clients that have gone need no answer.
            batch = [(item, future) for item, future in batch if not future.done()]
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Found]]]) -> None:
        items = [item for item, _ in batch]
        found: Sequence[Found | Exception]
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._work, items
            )
        except Exception as error:  # a bug: clients that wait must still get a reply
            found = [error] * len(items)
        for (_, future), answer in zip(batch, found, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
