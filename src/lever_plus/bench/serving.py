"""How much time the proxy adds to a reply, measured with a server that answers at once.

`lever-plus serve` runs in a process of its own, in front of a server on loopback that answers
immediately. The same chats go to that server directly and through the proxy, from one client and
from fifty; each client sends its next chat as soon as it has a reply. The added time is the
difference of the percentiles. It covers opening the image, encoding, choosing, and passing on five
times as many images.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from lever_plus.bench.made import Made, make, percentiles
from lever_plus.config.params import Params
from lever_plus.data.examples import Query
from lever_plus.errors import UserError, needs
from lever_plus.files.writing import write_json_lines
from lever_plus.vlm.backends.turns import chat_turns

POOL: Final = 64
SHOTS: Final = 4
CLIENTS: Final = (1, 50)
REQUESTS: Final = 1000
ALONE: Final = 200
"""Number of requests if there is only one client."""
FIRST: Final = 10
"""Number of requests before the timing begins, so that one-time work does not count."""
ANSWER: Final = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "red"}}]}'
REPLY: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(ANSWER), ANSWER)
)
Figures = dict[str, float]


def run(params: Params, requests: int = REQUESTS) -> dict[str, Figures]:
    """Return the figures for every number of clients: {"50 clients": {...}}.

    Args:
        params: Parameters of the pipeline.
        requests: Number of requests of all clients together, each way; a single client sends fewer.
            Each request asks a different question.

    Raises:
        UserError: A package or the encoder is missing, or the server does not start.
    """
    with needs("serve", "lever-plus bench serving"):
        import fastapi  # noqa: F401
        import httpx2  # noqa: F401
        import uvicorn  # noqa: F401
    with TemporaryDirectory() as folder:
        made = make(Path(folder), params, POOL, FIRST + ALONE + requests)
        return asyncio.run(_measured(made, Path(folder), requests))


async def _measured(made: Made, folder: Path, requests: int) -> dict[str, Figures]:
    bodies = iter([_body(query) for query in made.queries])
    found = {}
    async with _instant() as direct:
        with _served(made, folder, direct) as proxied:
            await _asked(proxied, [*islice(bodies, FIRST)], 1)
            for clients in CLIENTS:
                some = [*islice(bodies, requests if clients > 1 else min(ALONE, requests))]
                name = f"{clients} client{'s' * (clients > 1)}"
                found[name] = await _figures(direct, proxied, some, clients)
    return found


async def _figures(direct: str, proxied: str, bodies: Sequence[Any], clients: int) -> Figures:
    without, _ = await _asked(direct, bodies, clients)
    begun = time.perf_counter()
    through, lost = await _asked(proxied, bodies, clients)
    seconds = time.perf_counter() - begun
    figures = {**percentiles(without, "direct"), **percentiles(through, "proxied")}
    added = {
        f"added_{p}_ms": round(figures[f"proxied_{p}_ms"] - figures[f"direct_{p}_ms"], 2)
        for p in ("p50", "p95")
    }
    rate = round(len(through) / seconds, 1)
    return {"requests": len(bodies), "lost": lost, **figures, **added, "proxied_per_s": rate}


async def _asked(url: str, bodies: Sequence[Any], clients: int) -> tuple[list[float], int]:
    """Return the seconds of every reply, and how many replies were missing or wrong."""
    import httpx2

    seconds, lost = [], 0

    async def one_of_them(client: httpx2.AsyncClient, first: int) -> None:
        nonlocal lost
        for content in bodies[first::clients]:
            begun = time.perf_counter()
            reply = await client.post(f"{url}/chat/completions", json=content)
            seconds.append(time.perf_counter() - begun)
            lost += not (reply.status_code == 200 and reply.content == ANSWER)

    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(one_of_them(client, number) for number in range(clients)))
    return seconds, lost


def _body(query: Query) -> dict[str, Any]:
    return {"model": "instant", "temperature": 0.0, "messages": chat_turns([], query)}


@asynccontextmanager
async def _instant() -> Any:
    """Run a server on loopback that answers every request at once; yield its base URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                writer.write(REPLY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@contextmanager
def _served(made: Made, folder: Path, upstream: str) -> Iterator[str]:
    """Run `lever-plus serve` until the block ends; yield its base URL."""
    pool = folder / "pool.jsonl"
    write_json_lines(
        pool, ({"image": e.image, "question": e.question, "answer": e.answer} for e in made.pool)
    )
    command = [sys.executable, "-m", "lever_plus.cli.main", "serve", "--port", "0"]
    command += ["--checkpoint", str(made.checkpoint), "--pool", str(pool)]
    command += ["--upstream", upstream, "--shots", str(SHOTS), "--features", str(folder / "kept")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline() if process.stdout else ""
        if "/select" not in said:
            _, why = process.communicate()
            raise UserError(f"the server did not start: {why.strip()}")
        yield f"{said.partition('POST ')[2].partition('/select')[0]}/v1"
    finally:
        process.terminate()
        process.communicate()
