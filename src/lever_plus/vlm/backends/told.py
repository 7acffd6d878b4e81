"""What a server says about itself: version, fingerprint, limits. It is part of the identity.

A server of another version, or started with other options, may give other answers. If a server does
not tell its version (at `/version`, as vLLM does), its identity is that of the settings, and it is
asked nothing more.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.servers import Route
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.request import VlmIdentity
from lever_plus.vlm.template import AT_ONCE

LONGEST: Final = 100
"""Characters of a version or a fingerprint that are kept."""
SEPARATOR: Final = "; server "
"""Between the revision in the settings and what the server says."""
HELLO: Final = [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]


class Told(NamedTuple):
    """What a server says about itself; None for what it does not say.

    Attributes:
        version: Version of the server's program.
        fingerprint: Hash of the program, the model and the options; it is in every reply.
        longest: Largest number of tokens in a prompt and its answer (`max_model_len`).
        thinks: Whether the model's template has a switch for thinking, which is then turned off.
    """

    version: str | None = None
    fingerprint: str | None = None
    longest: int | None = None
    thinks: bool = False

    def identity(self, named: VlmIdentity) -> VlmIdentity:
        """Return the identity of the settings, with what the server says added."""
        if self.version is None:
            return named
        return {**named, "revision": f"{named['revision']}{SEPARATOR}{self}"}

    def __str__(self) -> str:
        """Return everything that the server says, separated by commas."""
        parts = [self.version or "of no version that it tells"]
        parts += [] if self.fingerprint is None else [f"fingerprint {self.fingerprint}"]
        parts += [] if self.longest is None else [f"max_model_len {self.longest}"]
        parts += ["thinking off"] if self.thinks else []
        return ", ".join(parts)


def told_before(named: VlmIdentity, known: Sequence[VlmIdentity]) -> VlmIdentity | None:
    """Return the identity that the server had when answers of these settings were last stored.

    Args:
        named: Identity of the settings alone.
        known: Identities of the stored answers, the newest last.

    Returns:
        The identity; None if there are no such answers.
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
        ServerError: The server cannot be reached, or is busy.
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
    """Return the reply at an endpoint that servers need not have; {} if this one does not.

    Raises:
        ServerError: The server cannot be reached, or is busy.
    """
    beside = endpoint.startswith("/")
    try:
        return await (_beside(server, endpoint, body) if beside else server.ask(endpoint, body))
    except ServerError as error:
        if error.passing:
            raise
        return {}


async def _beside(server: Route, endpoint: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Return the reply at a path outside the API; {} if a gateway does not pass the request on.

    A gateway may always answer 5xx there, or only while its server starts. So after the first 5xx
    the list of models is asked for, which every server has; if there is another 5xx after that, the
    gateway does not pass the path on.
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
    """Return the fingerprint in a reply, in printable form."""
    return _text(reply.get("system_fingerprint"))


def _text(value: object) -> str | None:
    return quoted(value, LONGEST) or None if isinstance(value, str) else None
