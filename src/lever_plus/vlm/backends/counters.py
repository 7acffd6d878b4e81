"""What a server has counted: prompt tokens, and those of them that it really ran.

vLLM says so in each reply only if it is started with `--enable-prompt-tokens-details`, but always
on its page of metrics; whoever else asks the server is counted there too.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from lever_plus.errors import UserError
from lever_plus.vlm.backends.client import open_client
from lever_plus.vlm.backends.exchange import address_of

PAGE_BYTES: Final = 4 * 2**20
SECONDS: Final = 5.0
_COUNTED: Final = re.compile(
    r'^vllm:prompt_tokens_by_source_total\{[^}]*\bsource="(\w+)"[^}]*\} ([\d.]+(?:e\+?\d+)?)$',
    re.MULTILINE,
)


class Counted(NamedTuple):
    """Prompt tokens since the server's start, in all and as they were run."""

    whole: int
    run: int


async def counted(urls: Sequence[str]) -> Counted | None:
    """Return what servers have counted, all together; None where one of them does not say.

    Args:
        urls: Their base URLs.
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
    """Return a page of text; empty where there is none, or one that is too long."""
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
