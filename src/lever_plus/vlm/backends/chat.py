"""A conversation with one server, with each request in the form that this server accepts.

What is found out about the server (`Known`) is kept beyond a conversation, for the whole process.
"""

from dataclasses import dataclass
from typing import Any, Final

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.errors import UserError
from lever_plus.vlm.backends.exchange import REPLY_BYTES
from lever_plus.vlm.backends.pictures import Pictures, is_miss
from lever_plus.vlm.backends.servers import Route
from lever_plus.vlm.backends.told import Told, ask_about, asked, fingerprint_of
from lever_plus.vlm.prompt import Message
from lever_plus.vlm.template import AT_ONCE
from lever_plus.vlm.usage import Usage

CONTINUED: Final = {"add_generation_prompt": False, "continue_final_message": True}
"""Options for a chat whose last message is the beginning of the assistant's turn."""


@dataclass
class Known:
    """What a process knows about a server.

    Attributes:
        told: What the server says about itself; None before it is asked.
        pictures: The images that it has, by hash; None if it does not accept hashes, or before that
            is known.
        counts: Whether its replies say how many tokens came from its cache.
    """

    told: Told | None = None
    pictures: Pictures | None = None
    counts: bool = False


class Chat:
    """A conversation with one server, or with others while that one fails.

    Attributes:
        salt: If not "", the server keeps a separate prefix cache for requests with this text.
    """

    def __init__(
        self, params: OpenAiVlmParams, route: Route, known: Known, usage: Usage, salt: str = ""
    ) -> None:
        """Take the settings; nothing is asked yet.

        Args:
            params: Settings of the VLM.
            route: Sends requests to the server.
            known: What is known about the server; what is found out is added.
            usage: Counts the tokens of prompts.
            salt: See the class.
        """
        self.params, self.route, self.known, self.salt = params, route, known, salt
        self._usage = usage

    async def tell(self) -> Told:
        """Return what the server says about itself; it is asked once.

        Raises:
            ServerError: The server cannot be reached, or is busy.
        """
        if self.known.told is None:
            self.known.told = await ask_about(self.route, self.params.model)
        return self.known.told

    @property
    def where(self) -> str:
        """The server's URL, without secrets."""
        return self.route.shown

    def place(self, what: str) -> str:
        """Return the beginning of errors about the last reply: the server, and what was asked."""
        return f"{self.where}, {what}"

    async def complete(
        self, turns: list[Message], options: dict[str, Any], limit: int = REPLY_BYTES
    ) -> dict[str, Any]:
        """Return the reply to a chat.

        Args:
            turns: Messages in the protocol's form, each image as a data URL.
            options: Fields of the request besides model and messages.
            limit: Largest size of the reply in bytes.

        Raises:
            UserError: There is no reply, or the server was replaced by another.
        """
        pictures = self.known.pictures
        body = {"model": self.params.model, "temperature": 0.0, **self._template(), **options}
        body |= {"cache_salt": self.salt} if self.salt else {}
        if pictures is None:
            reply = await self.route.ask("chat/completions", {**body, "messages": turns}, limit)
        else:
            reply = await self._with_uuids(pictures, turns, body, limit)
        self._check(reply)
        self._count(reply.get("usage"))
        return reply

    async def _with_uuids(
        self, pictures: Pictures, turns: list[Message], body: dict[str, Any], limit: int
    ) -> dict[str, Any]:
        """Send uuids of images that the server should have; if it lacks one, send all images."""
        sent = {**body, "messages": pictures.short(turns)}
        try:
            reply = await self.route.ask("chat/completions", sent, limit)
        except UserError as error:
            if not is_miss(error):
                raise
            sent = {**body, "messages": pictures.whole(turns)}
            reply = await self.route.ask("chat/completions", sent, limit)
        pictures.keep(turns)
        return reply

    async def tokens(self, turns: list[Message], options: dict[str, Any]) -> list[int] | None:
        """Return the token ids of a chat without images; None if the server does not say."""
        body = {"model": self.params.model, "messages": turns, **self._template(), **options}
        found = (await asked(self.route, "/tokenize", body)).get("tokens")
        whole = isinstance(found, list) and all(type(each) is int for each in found)
        return found if whole else None

    async def text(self, tokens: list[int]) -> str | None:
        """Return the text of tokens; None if the server does not say."""
        body = {"model": self.params.model, "tokens": tokens}
        found = (await asked(self.route, "/detokenize", body)).get("prompt")
        return found if isinstance(found, str) else None

    def _template(self) -> dict[str, Any]:
        told = self.known.told
        return {"chat_template_kwargs": AT_ONCE} if told and told.thinks else {}

    def _check(self, reply: dict[str, Any]) -> None:
        """Refuse the reply of a server that was replaced during the run."""
        told, now = self.known.told, fingerprint_of(reply)
        if told and told.fingerprint and now and now != told.fingerprint:
            raise UserError(
                f"{self.where} is not the server that was asked when this run began: the "
                f"fingerprint was {told.fingerprint}, and is {now} now. The answers so far are "
                "stored; run again to ask this one. Several servers must all be the same."
            )

    def _count(self, usage: object) -> None:
        """Count the tokens of a prompt; those from the server's cache were not computed."""
        counted = usage if isinstance(usage, dict) else {}
        details = counted.get("prompt_tokens_details")
        whole = counted.get("prompt_tokens")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        if type(whole) is int and type(cached) is int and 0 <= cached <= whole:
            self.known.counts = True
            self._usage.tokens_whole += whole
            self._usage.tokens_run += whole - cached
