"""Merging answer stores: one is checked as a whole, then all of its answers are added, or none.

A store from elsewhere is not trusted: every row must have the form of a store's row. If both stores
have different answers to the same request, that is a conflict, and the user has to decide.
"""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lever_plus.errors import UserError
from lever_plus.vlm.request import HIGHEST, VlmIdentity
from lever_plus.vlm.store.answers import LOOKUP, Store
from lever_plus.vlm.store.schema import (
    ADVICE,
    KEY_BYTES,
    LONGEST,
    explained,
    identities,
    looked_at,
)

CLOSE: Final = 1e-2
"""Log-likelihoods that differ by less (relatively, or in nats) count as equal: processors round
differently."""
BAD_ROW: Final = f"""
    SELECT hex(substr(key, 1, {KEY_BYTES})) FROM answer
    WHERE NOT (
        typeof(key) = 'blob' AND length(key) = {KEY_BYTES} AND vlm IN (SELECT id FROM vlm) AND (
            (typeof(text) = 'text' AND length(text) <= {LONGEST} AND log_likelihood IS NULL)
            OR (text IS NULL AND typeof(log_likelihood) = 'real'
                AND log_likelihood BETWEEN -1e300 AND {HIGHEST})
        )
    ) LIMIT 1
"""
Row = tuple[bytes, int, str | None, float | None]


def check_sources(sources: Sequence[Path], into: Path) -> None:
    """Refuse sources that cannot be merged, before a store is opened or created.

    Raises:
        UserError: One is missing, damaged, not an answer store, or the store `into` itself.
    """
    for source in sources:
        _refuse_itself(source, into)
        with looked_at(source) as connection:
            _check(connection, source)


def merge(store: Store, source: Path, *, keep_own: bool = False) -> int:
    """Add everything that another store holds; return how many answers were new.

    Args:
        store: The store that gets the answers, all or none.
        source: File of the other store, which is only read.
        keep_own: If both have different answers to a request, keep the one in `store`; without it
            that is an error.

    Raises:
        UserError: The source is missing, damaged, not an answer store or the same store; or both
            have different answers to the same request.
    """
    _refuse_itself(source, store.path)
    added = 0
    with looked_at(source) as theirs:
        theirs.execute("BEGIN")  # so that the rows that are read are those that were checked
        vlms = _check(theirs, source)
        with store.writing() as ours:
            numbers = {number: store.number(identity) for number, identity in vlms.items()}
            for part in _rows(theirs, source):
                marks = ",".join("?" * len(part))
                query = f"SELECT key, text, log_likelihood FROM answer WHERE key IN ({marks})"
                there = {k: value for k, *value in ours.execute(query, [row[0] for row in part])}
                for key, _, *value in part:
                    if key in there and not keep_own and not _equal(there[key], value):
                        raise _conflict(store.path, source, key, there[key], value)
                new = [(key, numbers[vlm], *value) for key, vlm, *value in part if key not in there]
                ours.executemany("INSERT INTO answer VALUES (?, ?, ?, ?)", new)
                added += len(new)
    return added


def _refuse_itself(source: Path, into: Path) -> None:
    if source.exists() and into.exists() and source.samefile(into):
        raise UserError(f"{source} is {into} itself: name another store to merge into it.")


def _rows(connection: sqlite3.Connection, path: Path) -> Iterator[list[Row]]:
    """Yield the answers of a store in parts; errors name this store, not the other."""
    with explained(path):
        rows = connection.execute("SELECT key, vlm, text, log_likelihood FROM answer")
        while part := rows.fetchmany(LOOKUP):
            yield part


def _check(connection: sqlite3.Connection, path: Path) -> dict[int, VlmIdentity]:
    """Return a store's VLMs; refuse damaged pages, and rows that no store writes."""
    (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if told != "ok":
        raise UserError(f"answer store {path}: it is damaged ({told}): {ADVICE}.")
    vlms = identities(connection, path)
    bad = connection.execute(BAD_ROW).fetchone()
    if bad is not None:
        raise UserError(
            f"answer store {path}: the answer with key {bad[0].lower()} is neither a text nor a "
            f"log-likelihood of a VLM: {ADVICE}."
        )
    return vlms


def _equal(ours: Sequence[object], theirs: Sequence[object]) -> bool:
    one, other = ours[1], theirs[1]
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    return [*ours] == [*theirs]


def _conflict(
    path: Path, source: Path, key: bytes, ours: Sequence[object], theirs: Sequence[object]
) -> UserError:
    mine, other = (next((v for v in each if v is not None), None) for each in (ours, theirs))
    return UserError(
        f"{source} and {path} hold different answers to the same request ({other!r:.60} and "
        f"{mine!r:.60}, key {key.hex()}), so nothing was merged: find out which is right, or keep "
        f"those of {path} (--keep-own)."
    )
