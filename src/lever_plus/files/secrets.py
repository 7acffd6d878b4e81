"""Taking keys and passwords out of what is printed, logged or sent on.

Errors quote addresses, servers' replies and database drivers; whatever they quote goes through
here before anybody reads it.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus, unquote

HIDDEN: Final = "***"
SHORTEST: Final = 8
"""Characters of an environment variable's value: shorter ones are parts of common words."""
_SECRET_VARIABLE: Final = re.compile(r"KEY|TOKEN|PASSW|PASSPHRASE|SECRET|CREDENTIAL", re.IGNORECASE)
_PLACE_VARIABLE: Final = re.compile(r"_(FILE|PATH|DIR|HOME|SOCK|URL)$", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[a-zA-Z][\w+.-]*://[^:/@\s]*:([^\s@]+)@")
"""A database's or a server's address with a password."""
_SLASHES: Final = r"(?://|%2F%2F|\\/\\/)"
_USERINFO: Final = re.compile(
    # As RFC 3986 has it, then with the characters that SQLAlchemy takes in a password as they are.
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
    r"\b(?:sk|pk|rk|gsk|xai|nvapi|hf|glpat|gh[oprsu]|github_pat|xox[abps])[-_][\w.-]{6,}"
    r"|\bAKIA[0-9A-Z]{12,}|\bAIza[\w-]{20,}|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
)


def without_secrets(text: str) -> str:
    """Return a text with *** in the place of every key and password that can be told.

    Users and passwords in URLs (also percent-encoded); values of names such as api_key, token,
    password, secret, sig; what follows Bearer; keys by their shape (sk-..., hf_...); and the values
    of environment variables whose names speak of a key, token, password or secret, wherever they
    are. A text without any is returned as it is.
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
    """Return the secrets of the environment in every form that a text may have, longest first."""
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
