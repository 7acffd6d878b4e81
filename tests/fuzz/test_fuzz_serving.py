"""Clients send odd requests to `lever-plus serve`: a sentence or a reply, never our fault."""

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from doors import Bad, try_all

from hosts.chat_server import Upstream, answering, serving
from lever_plus.data.examples import Example
from lever_plus.data.images import image_url
from lever_plus.errors import UserError
from lever_plus.hosts.serve.service import Service
from lever_plus.hosts.serve.serving import make_app
from lever_plus.hosts.serve.upstream import Upstream as Behind
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.backends.turns import chat_turns
from tiny_world import World
from trained_selector import SHOTS

CLIENT = httpx2.Client(timeout=20, trust_env=False)
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 1e308, "", " ", "a", "\x00", "<image>", "é" * 50, [], {}, [[]]),
    *([None], {"a": {}}, {"url": None}, {"url": 7}, {"url": "data:,"}, "data:image/png;base64,"),
    *("data:image/png;base64,AAAA", "/etc/passwd", "file:///etc/passwd", "https://a.org/b.png"),
    *([{"type": "text", "text": "a"}], {"type": "image_url"}, {"role": "user"}, "x" * 20_000),
)


@pytest.fixture(scope="module")
def address(trained: LearnedSelector, world: World) -> Iterator[str]:
    service = Service(trained, world.splits["train"], SHOTS)
    with (
        answering(Upstream()) as url,
        serving(make_app(service, Behind(url))) as address,
    ):
        yield address


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every part of some JSON."""
    yield path
    parts = content.items() if isinstance(content, dict) else ()
    parts = enumerate(content) if isinstance(content, list) else parts
    for name, part in parts:
        yield from places(part, (*path, name))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return JSON with another part."""
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = changed(content[path[0]], path[1:], value)
    return copy


def bad(address: str, place: str, content: bytes) -> Bad:
    def run() -> None:
        sent = {"Content-Type": "application/json"}
        reply = CLIENT.post(address + place, content=content, headers=sent)
        if reply.status_code != 200:
            assert reply.status_code == 400, (reply.status_code, reply.text)
            raise UserError(reply.json()["error"]["message"])

    said = ("the request", "image", "question", "pool", "demonstrations")
    return Bad(f"{place} {content[:300]!r}", run, said)


def posts(content: Any, count: int) -> Iterator[bytes]:
    """Yield requests with one part that is odd, some cut off, some with other bytes."""
    tries = random.Random(1)
    every = [(path, value) for path in places(content) for value in ODD]
    for path, value in tries.sample(every, min(count, len(every))):
        yield json.dumps(changed(content, path, value)).encode()
    whole = json.dumps(content).encode()
    for _ in range(20):
        cut = tries.randrange(len(whole))
        yield whole[:cut]
        yield whole[:cut] + bytes([tries.randrange(256)]) + whole[cut + 1 :]


def asked(world: World) -> Example:
    return world.splits["test"][0]


def test_questions(address: str, world: World) -> None:
    query = asked(world)
    pool = [
        {"image": image_url(e.image), "question": e.question, "answer": e.answer}
        for e in world.splits["dev"][:3]
    ]
    content = {
        "image": image_url(query.image),
        "question": query.question,
        "shots": 1,
        "pool": pool,
        "images": False,
        "answer": False,
    }
    inputs = (bad(address, "/select", each) for each in posts(content, 150))
    assert try_all("questions to the server", inputs)["refused"] > 50


def test_chats(address: str, world: World) -> None:
    turns = chat_turns([], asked(world).query)
    content = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, *turns]}
    inputs = (bad(address, "/v1/chat/completions", each) for each in posts(content, 200))
    assert try_all("chats to the server", inputs)["fine"] > 50
