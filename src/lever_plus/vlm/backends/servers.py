"""One VLM on one or more servers: which of them is asked, and how long to wait for a failed one.

Each server has its own prefix cache, so requests that begin with the same demonstration go to the
same server. While a server is down or restarting, its requests go to the others; if there are none,
they wait.
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
"""Wait before the second attempt; it doubles with each further one."""
LONGEST_BACKOFF: Final = 8.0
"""Longest wait between attempts, in seconds."""
LONGEST_RETRY_AFTER: Final = 60.0
"""Longest wait that a server may ask for, in seconds."""
REST_SECONDS: Final = 5.0
"""How long a server that has failed is not asked while others answer."""
ANNOUNCED: Final = 4
"""After how many failed attempts there is a warning."""


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
            urls: Base URLs of the servers.
            model: Name of the model, for errors.
            timeout_s: Longest time from the start of a request to the last byte of its reply.
            patience_s: For how many seconds after its first failure a request is repeated.
            connections: Largest number of requests at once on each server.
        """
        self.patience_s, self.timeout_s = patience_s, timeout_s
        # One server may have to do the work of all.
        most = connections * len(urls)
        self.each = [Server(url, model, timeout_s, most) for url in urls]
        self._rests = dict.fromkeys(self.each, 0.0)
        self._announced: set[Server] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open all clients; raises UserError like `Server`."""
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
        """Return the first server that has not just failed; if all have, the first one."""
        chosen = next((server for server in order if not self.rests(server)), order[0])
        if self._rests[chosen]:  # one request is enough to find out whether it is back
            self._rests[chosen] = time.monotonic() + REST_SECONDS
        return chosen

    def rests(self, server: Server) -> bool:
        """Return whether a server has failed in the last few seconds."""
        return time.monotonic() < self._rests[server]

    def failed(self, server: Server, error: ServerError, tries: int) -> None:
        """Do not ask a server for a while; warn if it has failed for some time."""
        self._rests[server] = time.monotonic() + REST_SECONDS
        if tries >= ANNOUNCED and server not in self._announced:
            self._announced.add(server)
            LOG.warning("%s Trying again for up to %g s (vlm.patience_s).", error, self.patience_s)

    def answered(self, server: Server) -> None:
        """Note that a server has answered."""
        self._rests[server] = 0.0
        if server in self._announced:
            self._announced.remove(server)
            LOG.warning("%s answers again.", server.shown)


def opened(params: OpenAiVlmParams, connections: int) -> Servers:
    """Return the servers that the settings name, as a context to be opened."""
    named = params.urls, params.model, params.timeout_s, params.patience_s
    return Servers(*named, connections)


class Route:
    """Where one worker's requests go: to one server and, while it fails, to the next ones."""

    def __init__(self, servers: Servers, first: int) -> None:
        """Take the servers, and the index of the one that is asked as long as it answers."""
        self._servers = servers
        self._order = [*servers.each[first:], *servers.each[:first]]
        self._last = self._order[0]

    @property
    def shown(self) -> str:
        """The URL of the server that was asked last, without secrets."""
        return self._last.shown

    async def ask(
        self,
        endpoint: str,
        body: dict[str, Any] | None = None,
        limit: int = REPLY_BYTES,
        *,
        patient: bool = True,
    ) -> dict[str, Any]:
        """Return a server's reply; try again after failures that may pass.

        Args:
            endpoint: See `Server.ask`.
            body: See `Server.ask`.
            limit: See `Server.ask`.
            patient: Whether to try again.

        Raises:
            ServerError: See `Server.ask`; a failure that may pass has lasted `patience_s`.
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
        """Return how many seconds to wait: as the server asks, within limits, or ever longer."""
        longest = min(LONGEST_RETRY_AFTER, self._servers.timeout_s)
        if error.wait is not None and 0 <= error.wait <= longest:
            return error.wait
        # The exponent is bounded, so that the power of two stays small.
        backoff = BACKOFF_SECONDS * 2.0 ** min(tries - 1, 10)
        return min(LONGEST_BACKOFF, backoff) * random.uniform(0.75, 1)

    def _given_up(self, error: ServerError, tries: int) -> ServerError:
        if not tries:
            return error
        asked = f"Tried {tries + 1} times in {self._servers.patience_s:g} s (vlm.patience_s)."
        return ServerError(f"{error} {asked}", error.status, passing=True)


class Shares:
    """Shares requests among servers, and says which one each server is asked next."""

    def __init__(self, beginnings: Sequence[str], urls: Sequence[str]) -> None:
        """Assign each request to a server.

        Args:
            beginnings: A text for what each request begins with. Requests with the same text go to
                the same server, in every process.
            urls: Base URLs of the servers.
        """
        homes = {begin: _home(begin, urls) for begin in dict.fromkeys(beginnings)}
        self._waiting: list[deque[int]] = [deque() for _ in urls]
        for number, begin in enumerate(beginnings):
            self._waiting[homes[begin]].append(number)

    def next(self, server: int) -> int | None:
        """Return the number of the next request for a server; None if no request is left.

        If none of its own requests is left, it gets the last one of the longest queue.
        """
        own, longest = self._waiting[server], max(self._waiting, key=len)
        if own:
            return own.popleft()
        return longest.pop() if longest else None


def _home(begin: str, urls: Sequence[str]) -> int:
    """Return the index of the server whose hash together with `begin` is the largest.

    So if a server is added or removed, only its own requests move (rendezvous hashing).
    """
    hashes = [hashlib.sha256(f"{url} {begin}".encode()).digest() for url in urls]
    return max(range(len(urls)), key=hashes.__getitem__)
