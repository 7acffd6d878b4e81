"""One VLM on one server, or on several: which is asked, and how long one that fails is waited for.

Every server has a prefix cache of its own, so requests that begin with the same demonstration are
asked of the same one. A server that is down, or starts again, hands its requests to the others;
where there are none, they wait for it.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.vlm.backends.exchange import REPLY_BYTES, Server, ServerError

LOG = logging.getLogger("lever_plus")
BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF: Final = 8.0
LONGEST_RETRY_AFTER: Final = 60.0
REST_SECONDS: Final = 5.0
"""Time for which a server that has failed is left alone while others answer."""
ANNOUNCED: Final = 4
"""Tries that fail before people are told that a server is waited for."""


class Servers:
    """The servers of one VLM; an asynchronous context."""

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        timeout_s: float,
        patience_s: float = 0.0,
        connections: int = 1,
    ) -> None:
        """Name the servers; nothing is asked yet.

        Args:
            urls: Their base URLs.
            model: Name of the model that is asked, for errors.
            timeout_s: Longest time from the start of a request to the last byte of its reply.
            patience_s: How long after its first failure a request is made again.
            connections: Requests under way at once, at each server.
        """
        self.patience_s, self.timeout_s = patience_s, timeout_s
        # One server may have to do the work of all of them.
        most = connections * len(urls)
        self.each = [Server(url, model, timeout_s, most) for url in urls]
        self._rests = dict.fromkeys(self.each, 0.0)
        self._announced: set[Server] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open all clients; UserError as `Server`."""
        for server in self.each:
            await self._stack.enter_async_context(server)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._stack.aclose()

    def choose(self, order: Sequence[Server]) -> Server:
        """Return the first server that does not rest; if all do, the first."""
        chosen = next((server for server in order if not self.rests(server)), order[0])
        if self._rests[chosen]:  # one request is enough to see whether it is back
            self._rests[chosen] = time.monotonic() + REST_SECONDS
        return chosen

    def rests(self, server: Server) -> bool:
        """Return whether a server has failed a moment ago."""
        return time.monotonic() < self._rests[server]

    def failed(self, server: Server, error: ServerError, tries: int) -> None:
        """Let a server rest; say so if it has failed for some time."""
        self._rests[server] = time.monotonic() + REST_SECONDS
        if tries >= ANNOUNCED and server not in self._announced:
            self._announced.add(server)
            LOG.warning("%s Asked again, for up to %g s (vlm.patience_s).", error, self.patience_s)

    def answered(self, server: Server) -> None:
        """Take a server for well."""
        self._rests[server] = 0.0
        if server in self._announced:
            self._announced.remove(server)
            LOG.warning("%s answers again.", server.shown)


def opened(params: OpenAiVlmParams, connections: int) -> Servers:
    """Return the servers that the settings name, to be opened."""
    named = params.urls, params.model, params.timeout_s, params.patience_s
    return Servers(*named, connections)


class Route:
    """The way of one worker's requests: first to one server, then to those after it."""

    def __init__(self, servers: Servers, first: int) -> None:
        """Keep the order; `first`: number of the server that is asked as long as it answers."""
        self._servers = servers
        self._order = [*servers.each[first:], *servers.each[:first]]
        self._last = self._order[0]

    @property
    def shown(self) -> str:
        """The URL of the server that was asked last, as people may see it."""
        return self._last.shown

    async def ask(
        self,
        endpoint: str,
        body: dict[str, Any] | None = None,
        limit: int = REPLY_BYTES,
        *,
        patient: bool = True,
    ) -> dict[str, Any]:
        """Return a server's reply, asking again after failures that may pass.

        Arguments as `Server.ask`; `patient`: whether it is asked again.

        Raises:
            ServerError: As `Server.ask`; what may pass has not passed within `patience_s`.
        """
        ends, tries = None, 0
        while True:
            server = self._last = self._servers.choose(self._order)
            try:
                reply = await server.ask(endpoint, body, limit)
            except ServerError as error:
                if not (error.passing and patient):
                    raise
                now = time.monotonic()
                ends = now + self._servers.patience_s if ends is None else ends
                if now >= ends:
                    raise self._given_up(error, tries) from error
                tries += 1
                self._servers.failed(server, error, tries)
                if all(map(self._servers.rests, self._order)):
                    await asyncio.sleep(min(ends - now, self._wait(error, tries)))
                continue
            self._servers.answered(server)
            return reply

    def _wait(self, error: ServerError, tries: int) -> float:
        """Return the server's own wish, if it is a sensible one, else some time more every try."""
        longest = min(LONGEST_RETRY_AFTER, self._servers.timeout_s)
        if error.wait is not None and 0 <= error.wait <= longest:
            return error.wait
        # So many tries that a power of two is no float would take more than a hundred days.
        backoff = BACKOFF_SECONDS * 2.0 ** min(tries - 1, 10)
        return min(LONGEST_BACKOFF, backoff) * random.uniform(0.75, 1)

    def _given_up(self, error: ServerError, tries: int) -> ServerError:
        if not tries:
            return error
        asked = f"Asked {tries + 1} times in {self._servers.patience_s:g} s (vlm.patience_s)."
        return ServerError(f"{error} {asked}", error.status, passing=True)


class Shares:
    """Which request each server is asked next."""

    def __init__(self, beginnings: Sequence[str], urls: Sequence[str]) -> None:
        """Give every request to a server.

        Args:
            beginnings: What each request begins with; those with the same go to the same server, in
                every process and whatever other servers there are.
            urls: The servers.
        """
        homes = {begin: _home(begin, urls) for begin in dict.fromkeys(beginnings)}
        self._waiting: list[deque[int]] = [deque() for _ in urls]
        for number, begin in enumerate(beginnings):
            self._waiting[homes[begin]].append(number)

    def next(self, server: int) -> int | None:
        """Return a server's next request; none of its own is left: the last of the longest queue.

        None: nothing is left.
        """
        own, longest = self._waiting[server], max(self._waiting, key=len)
        if own:
            return own.popleft()
        return longest.pop() if longest else None


def _home(begin: str, urls: Sequence[str]) -> int:
    """Return the number of a server: the one whose hash with `begin` is the largest.

    Where a server comes or goes, only its own requests move.
    """
    hashes = [hashlib.sha256(f"{url} {begin}".encode()).digest() for url in urls]
    return max(range(len(urls)), key=hashes.__getitem__)
