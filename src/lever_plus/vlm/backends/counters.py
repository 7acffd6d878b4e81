"""A server's own counts of prompt tokens, and of those among them that it computed.

vLLM says so in each reply only if it was started with `--enable-prompt-tokens-details`, but always
at /metrics, where the requests of all its users are counted together.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from lever_plus.errors import UserError
from lever_plus.vlm.backends.client import open_client
from lever_plus.vlm.backends.exchange import address_of

PAGE_BYTES: Final = 4 * 2**20
"""Largest page of metrics that is read."""
SECONDS: Final = 5.0
"""Longest time for the page of metrics."""
_COUNTED: Final = re.compile(
    r'^vllm:prompt_tokens_by_source_total\{[^}]*\bsource="(\w+)"[^}]*\} ([\d.]+(?:e\+?\d+)?)$',
    re.MULTILINE,
)


class Counted(NamedTuple):
    """Prompt tokens since the server's start: all of them, and those that were computed."""

    whole: int
    run: int


async def counted(urls: Sequence[str]) -> Counted | None:
    """Return the sum of the servers' counts; None if one of them does not say.

    Args:
        urls: Base URLs of the servers.
    """
    whole = run = 0
    for url in urls:
        page = await _page(address_of(url, "/metrics"))
        found = [(source, int(float(value))) for source, value in _COUNTED.findall(page)]
        if not found:
            return None
        whole += sum(value for _, value in found)
        run += sum(value for source, value in found if source == "local_compute")
    return Counted(whole, run)


async def _page(address: str) -> str:
    """Return a page as text; "" if it is missing or too long."""
    import httpx2

    read = bytearray()
    try:
        async with (
            open_client(address, 1, SECONDS) as client,
            client.stream("GET", address, timeout=SECONDS) as reply,
        ):
            async for chunk in reply.aiter_raw():
                read += chunk
                if reply.status_code != 200 or len(read) > PAGE_BYTES:
                    return ""
    except (httpx2.HTTPError, httpx2.InvalidURL, UserError):
        return ""
    return read.decode("utf-8", "replace")
