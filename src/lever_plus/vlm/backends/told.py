"""What a server tells of itself: version, fingerprint, limits. Answers are kept under it.

Servers of another version, or started with other flags, may answer otherwise. One that does not say
its version (`/version`, as vLLM does) is known by the settings alone, and is asked nothing more.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.servers import Route
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.request import VlmIdentity
from lever_plus.vlm.template import AT_ONCE

LONGEST: Final = 100
SEPARATOR: Final = "; server "
"""Between the revision of the settings and what the server tells."""
HELLO: Final = [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]


class Told(NamedTuple):
    """What a server tells of itself; None where it does not.

    Attributes:
        version: Of the server's program.
        fingerprint: Of the program, the model and the flags; in every reply.
        longest: Most tokens of a prompt and its answer (`max_model_len`).
        thinks: Whether the model's template can turn thinking off; then it is turned off.
    """

    version: str | None = None
    fingerprint: str | None = None
    longest: int | None = None
    thinks: bool = False

    def identity(self, named: VlmIdentity) -> VlmIdentity:
        """Return an identity, of the settings alone, with what the server tells."""
        if self.version is None:
            return named
        return {**named, "revision": f"{named['revision']}{SEPARATOR}{self}"}

    def __str__(self) -> str:
        """Return all of it, as a list."""
        parts = [self.version or "of no version that it tells"]
        parts += [] if self.fingerprint is None else [f"fingerprint {self.fingerprint}"]
        parts += [] if self.longest is None else [f"max_model_len {self.longest}"]
        parts += ["thinking off"] if self.thinks else []
        return ", ".join(parts)


def told_before(named: VlmIdentity, known: Sequence[VlmIdentity]) -> VlmIdentity | None:
    """Return the identity with what a server told when answers were last stored, if any were.

    Args:
        named: Identity of the settings alone.
        known: Identities that answers are stored under, the newest last.
    """
    for identity in reversed(known):
        revision, separator, _ = identity["revision"].partition(SEPARATOR)
        same = all(identity[key] == named[key] for key in ("model", "dtype"))
        if separator and same and revision == named["revision"]:
            return {**named, "revision": identity["revision"]}
    return None


async def ask_about(server: Route, model: str) -> Told:
    """Ask a server about itself.

    Raises:
        ServerError: It cannot be reached, or is busy.
    """
    version = _text((await asked(server, "/version")).get("version"))
    if version is None:
        return Told()
    body = {"model": model, "messages": HELLO, "max_tokens": 1, "temperature": 0.0}
    fingerprint = fingerprint_of(await asked(server, "chat/completions", body))
    rows = (await asked(server, "models")).get("data")
    named = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    longest = next((row.get("max_model_len") for row in named if row.get("id") == model), None)
    chat = {"model": model, "messages": HELLO}
    prompts = [
        (await asked(server, "/tokenize", {**chat, **more})).get("tokens")
        for more in ({}, {"chat_template_kwargs": AT_ONCE})
    ]
    thinks = all(isinstance(each, list) for each in prompts) and prompts[0] != prompts[1]
    return Told(version, fingerprint, longest if type(longest) is int else None, thinks)


async def asked(server: Route, endpoint: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the reply to what a server need not offer; empty where it does not.

    Raises:
        ServerError: It cannot be reached, or is busy.
    """
    beside = endpoint.startswith("/")
    try:
        return await (_beside(server, endpoint, body) if beside else server.ask(endpoint, body))
    except ServerError as error:
        if error.passing:
            raise
        return {}


async def _beside(server: Route, endpoint: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Return the reply at a path outside the API; empty where a gateway does not pass it on.

    A gateway may answer 5xx there for ever, but also while its server starts: once the server
    answers what all offer, a second such answer is taken for the gateway's last word.
    """
    for is_last in (False, True):
        try:
            return await server.ask(endpoint, body, patient=False)
        except ServerError as error:
            if not error.passing:
                raise
            if error.status is None or error.status < 500:
                break
            if is_last:
                return {}
        await server.ask("models")
    return await server.ask(endpoint, body)


def fingerprint_of(reply: dict[str, Any]) -> str | None:
    """Return the fingerprint that a reply carries, as it can be shown."""
    return _text(reply.get("system_fingerprint"))


def _text(value: object) -> str | None:
    return quoted(value, LONGEST) or None if isinstance(value, str) else None
