"""Takes keys and passwords out of what is printed, logged or sent on.

Errors quote addresses, servers' replies and database drivers. Whatever they quote passes through
`without_secrets` before anybody reads it.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus, unquote

HIDDEN: Final = "***"
SHORTEST: Final = 8
"""Characters of an environment variable's value: a shorter one might be part of a common word."""
_SECRET_VARIABLE: Final = re.compile(r"KEY|TOKEN|PASSW|PASSPHRASE|SECRET|CREDENTIAL", re.IGNORECASE)
_PLACE_VARIABLE: Final = re.compile(r"_(FILE|PATH|DIR|HOME|SOCK|URL)$", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[a-zA-Z][\w+.-]*://[^:/@\s]*:([^\s@]+)@")
"""A database's or a server's address with a password."""
_SLASHES: Final = r"(?://|%2F%2F|\\/\\/)"
_USERINFO: Final = re.compile(
    # First as in RFC 3986, then with the characters that SQLAlchemy accepts unescaped in passwords.
    rf"({_SLASHES})[^/?#\s\"'<>]{{1,500}}(?:@|%40)"
    rf"|({_SLASHES})[^/?#:\s\"'<>]{{0,200}}:(?!\d{{1,5}}(?:[/?#]|$))[^\s@\"'<>]{{1,500}}@",
    re.IGNORECASE,
)
_WORDS: Final = (
    r"(?:api[-_.]?key|(?:access|secret|private|account|subscription)[-_.]?key|password|passwd|pwd"
    r"|passphrase|secret|(?:access|auth|api|refresh|session|security|id|hf)[-_.]?token"
    r"|client[-_.]?secret|credentials?|authorization)"
)
_IN_QUERY: Final = re.compile(
    rf"((?:[?&;]|%3F|%26|&amp;)[\w.%-]{{0,40}}?(?:{_WORDS}|token|sig|signature|key|auth)"
    r"(?:=|%3D))(?:(?!%26)[^&;#\s\"'<>])+",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(
    # password=..., "api_key": "...", 'X-Api-Key': '...', api-key: "..."
    rf"(\b(?:[\w-]{{0,40}}[-_.])?(?:{_WORDS}|token)"
    r"(?:\s?=\s?|%3D|\\?[\"']\s?[:=]\s?|\s?:\s?(?=[\"'])))"
    r"(?:\"[^\"]*\"|'[^']*'|\\\"[^\"]*\\\"|[^\s&;,\"'<>(){}\[\]]+)",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"\b(bearer\s+|basic\s+(?=[\w+/]{8,}=*(?:\W|$))|(?:authorization|(?:x-)?api-key):\s*)"
    r"(?!bearer|basic|\*)[\w.~+/=:-]{3,}",
    re.IGNORECASE,
)
_SHAPES: Final = re.compile(
    # Keys of known services; long enough that no name of a folder looks like one.
    r"\bsk-(?=[\w.-]*[0-9A-Z])[\w.-]{6,}|\b(?:gh[oprsu]|hf)_\w{16,}|\bgithub_pat_\w{16,}"
    r"|\b(?:gsk_|xai-|nvapi-|glpat-|xox[abps]-|[pr]k_live_)[\w-]{12,}"
    r"|\bAKIA[0-9A-Z]{12,}|\bAIza[\w-]{20,}|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
)


def without_secrets(text: str) -> str:
    """Return a text with *** in place of every key and password that can be recognised.

    These are users and passwords in URLs (percent-encoded ones, too); values of names such as
    api_key, token, password, secret and sig; what follows Bearer; texts in the shape of a known
    service's key (sk-..., hf_...); and, anywhere in the text, the values of environment variables
    whose names contain key, token, password, secret or the like. A text without any of them is
    returned unchanged.
    """
    for value in _values():
        text = text.replace(value, HIDDEN)
    text = _USERINFO.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@", text)
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def has_secrets(url: str) -> bool:
    """Return whether a URL holds a user, a password or a key."""
    return without_secrets(url) != url or "@" in url.partition("//")[2].partition("/")[0]


def _values() -> list[str]:
    """Return the environment's secrets in every form that a text may hold, longest first."""
    forms: set[str] = set()
    for secret in _of_environment():
        if len(secret) >= SHORTEST:
            forms |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
            forms |= {json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    return sorted(forms, key=lambda form: (-len(form), form))


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if address := _ADDRESS.match(value):
            yield from (address[1], unquote(address[1]))
        elif _SECRET_VARIABLE.search(name) and not _PLACE_VARIABLE.search(name):
            yield value.strip()
