"""A conversation with one server: every request in the form that this server takes.

What is found out about the server (`Known`) outlives a conversation: it is asked once a process.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets
from lever_plus.vlm.backends.exchange import REPLY_BYTES, Server
from lever_plus.vlm.backends.pictures import Pictures, is_miss
from lever_plus.vlm.backends.told import NO_THINKING, Told, ask_about, asked
from lever_plus.vlm.prompt import Message
from lever_plus.vlm.usage import Usage

CONTINUED: Final = {"add_generation_prompt": False, "continue_final_message": True}
"""The last message is the beginning of the assistant's turn."""


@dataclass
class Known:
    """What a process knows about a server.

    Attributes:
        told: What the server tells of itself; None before it is asked.
        pictures: How it takes images; None before that is found out.
        counts: Whether its replies say how many tokens came from its cache.
    """

    told: Told | None = None
    pictures: Pictures | None = None
    counts: bool = False


class Chat:
    """An open conversation; an asynchronous context.

    Attributes:
        salt: Text that keeps the server's prefix cache apart, where it has one; "" shares it.
    """

    def __init__(
        self, params: OpenAiVlmParams, connections: int, known: Known, usage: Usage
    ) -> None:
        """Name the server; nothing is asked yet.

        Args:
            params: Which server.
            connections: Requests under way at once.
            known: What is known about it, and what will be.
            usage: Gets the tokens of every prompt.
        """
        self.params, self.known, self._usage = params, known, usage
        named = params.model, params.timeout_s, params.retries, connections
        self.server, self.host = Server(params.url, *named), Server(above(params.url), *named)
        self.salt = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the clients; UserError as `client.open_client`."""
        for server in (self.server, self.host):
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

    async def tell(self) -> Told:
        """Return what the server tells of itself; it is asked once.

        Raises:
            ServerError: It cannot be reached, or is busy.
        """
        if self.known.told is None:
            self.known.told = await ask_about(self.server, self.host, self.params.model)
        return self.known.told

    @property
    def where(self) -> str:
        """The server's URL, as people may see it."""
        return self.server.shown

    async def complete(
        self, turns: list[Message], options: dict[str, Any], limit: int = REPLY_BYTES
    ) -> dict[str, Any]:
        """Return the reply to a chat.

        Args:
            turns: Messages in the protocol's form, every image as a data URL.
            options: Fields of the request beside model and messages.
            limit: Most bytes of the reply.

        Raises:
            UserError: There is no reply, or it is not the server's of before.
        """
        pictures = self.known.pictures
        body = {"model": self.params.model, "temperature": 0.0, **self._template(), **options}
        body |= {"cache_salt": self.salt} if self.salt else {}
        if pictures is None:
            reply = await self.server.ask("chat/completions", {**body, "messages": turns}, limit)
        else:
            reply = await self._with_uuids(pictures, turns, body, limit)
        self._check(reply)
        self._count(reply.get("usage"))
        return reply

    async def _with_uuids(
        self, pictures: Pictures, turns: list[Message], body: dict[str, Any], limit: int
    ) -> dict[str, Any]:
        """Send the images that the server should have by their uuids; those it lost again."""
        sent = {**body, "messages": pictures.short(turns)}
        try:
            reply = await self.server.ask("chat/completions", sent, limit)
        except UserError as error:
            if not is_miss(error):
                raise
            sent = {**body, "messages": pictures.whole(turns)}
            reply = await self.server.ask("chat/completions", sent, limit)
        pictures.keep(turns)
        return reply

    async def tokens(self, turns: list[Message], options: dict[str, Any]) -> list[int] | None:
        """Return the tokens of a chat without images; None where the server does not say."""
        body = {"model": self.params.model, "messages": turns, **self._template(), **options}
        found = (await asked(self.host, "tokenize", body)).get("tokens")
        whole = isinstance(found, list) and all(type(each) is int for each in found)
        return found if whole else None

    async def text(self, tokens: list[int]) -> str | None:
        """Return the text of tokens; None where the server does not say."""
        body = {"model": self.params.model, "tokens": tokens}
        found = (await asked(self.host, "detokenize", body)).get("prompt")
        return found if isinstance(found, str) else None

    def _template(self) -> dict[str, Any]:
        told = self.known.told
        return {"chat_template_kwargs": NO_THINKING} if told and told.thinks else {}

    def _check(self, reply: dict[str, Any]) -> None:
        """Refuse the reply of a server that was replaced in mid-run."""
        told, now = self.known.told, reply.get("system_fingerprint")
        if told and told.fingerprint and isinstance(now, str) and now != told.fingerprint:
            raise UserError(
                f"{self.where} is not the server that it was when this run began: its fingerprint "
                f"was {told.fingerprint}, and is {without_secrets(now)[:100]!r} now. What was "
                "answered before is stored; run again to ask this one."
            )

    def _count(self, usage: object) -> None:
        """Add the tokens of a prompt; those from the server's cache were not run."""
        counted = usage if isinstance(usage, dict) else {}
        details = counted.get("prompt_tokens_details")
        whole = counted.get("prompt_tokens")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        if type(whole) is int and type(cached) is int and 0 <= cached <= whole:
            self.known.counts = True
            self._usage.tokens_whole += whole
            self._usage.tokens_run += whole - cached


def above(url: str) -> str:
    """Return a server's URL without the /v1 of the protocol."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path.rstrip("/").removesuffix("/v1")).geturl()
