"""Run asynchronous work from ordinary code, even if an event loop runs already (notebooks)."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from lever_plus.vlm.request import Done

Result = TypeVar("Result")
Work = Callable[[Done[Result]], Coroutine[Any, Any, list[Result]]]


def run_to_end(work: Work[Result], done: Done[Result]) -> list[Result]:
    """Run asynchronous work and return its results.

    Args:
        work: Takes a function to which it reports results, and returns all results.
        done: Called with all reported results, always in the caller's thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work(done))
    with ThreadPoolExecutor(1) as pool:
        return _run_beside(pool, work, done)


def _run_beside(pool: ThreadPoolExecutor, work: Work[Result], done: Done[Result]) -> list[Result]:
    """Run work in another thread; an exception in the caller cancels it."""
    reports: SimpleQueue[tuple[Sequence[int], Sequence[Result]] | None] = SimpleQueue()
    begun: Future[tuple[Any, Any]] = Future()

    async def whole() -> list[Result]:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work(lambda numbers, results: reports.put((numbers, results)))

    ended = pool.submit(lambda: asyncio.run(whole()))
    ended.add_done_callback(lambda _: reports.put(None))
    try:
        while (report := reports.get()) is not None:
            done(*report)
    except BaseException:
        loop, task = begun.result()
        with suppress(RuntimeError):  # it has ended already
            loop.call_soon_threadsafe(task.cancel)
        raise
    return ended.result()
