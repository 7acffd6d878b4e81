"""The answer store: each VLM answer is computed once, by the first stage that needs it.

An answer is found by content: its key covers the VLM's identity (weights, precision, prompt,
decoding) and the image, question and answer of each demonstration in order and of the query. Ids
are no part of it. The value is the text as generated, or the log-likelihood; another metric can
score it without asking again. The store is one SQLite file in WAL mode: several processes can read
and write, and an answer is safe, whatever happens to the process, once `put` has returned.
"""

import contextlib
import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

from lever_plus.data.examples import Example, Query, hashed, hashed_query
from lever_plus.errors import UserError
from lever_plus.vlm.request import HIGHEST, Kind, Request, VlmIdentity
from lever_plus.vlm.store.schema import (
    ADVICE,
    APPLICATION,
    KEY_BYTES,
    LONGEST,
    SCHEMA,
    TABLES,
    WAIT_S,
    check_schema,
    explained,
    identities,
    identity_text,
    is_interrupted,
    looked_at,
)

LOOKUP: Final = 500
"""How many keys are looked up by one statement."""


class Statistics(NamedTuple):
    """How much a store holds of one VLM: answers (`empty` of them empty) and log-likelihoods."""

    identity: VlmIdentity
    answers: int
    log_likelihoods: int
    empty: int


class Store:
    """An open store file; several threads may use it."""

    def __init__(self, path: Path) -> None:
        """Open a store, or create a new one.

        Raises:
            UserError: The file is damaged, belongs to another program or another version, or cannot
                be written.
        """
        self.path, self._writing = path, Lock()
        if path.exists() and not is_interrupted(path):
            with looked_at(path, may_be_empty=True):
                pass
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA trusted_schema = OFF")
            check_schema(self._connection, path, may_be_empty=True)
            self._to_wal()
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                for table in TABLES.values():
                    table = table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
                    self._connection.execute(table)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA}")

    def _to_wal(self) -> None:
        """Switch to WAL mode, in which readers never wait and a kill loses nothing committed.

        SQLite does not wait for a lock in this step: of several processes that create a store at
        once, all but one get an error immediately. So the waiting is done here.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def get(self, kind: Kind, keys: Sequence[bytes]) -> dict[bytes, str | float]:
        """Return {key: value} for those of the keys that are stored.

        Raises:
            UserError: A value is not an answer or log-likelihood: another program wrote it.
        """
        found = self._look_up("answer", "text" if kind == "answer" else "log_likelihood", keys)
        for key, value in found.items():
            if not is_value(kind, value):
                raise UserError(
                    f"answer store {self.path}: {value!r:.60} (key {key.hex()}) is not "
                    f"a valid {kind.replace('_', '-')}: {ADVICE}."
                )
        return found

    def put(
        self, kind: Kind, identity: VlmIdentity, values: Sequence[tuple[bytes, str | float]]
    ) -> None:
        """Store values; once this returns, they are safe. Values already stored stay unchanged."""
        text = kind == "answer"
        with explained(self.path), self._transaction():
            vlm = self.number(identity)
            rows = [
                (k, vlm, str(v) if text else None, None if text else float(v)) for k, v in values
            ]
            self._connection.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?)", rows)

    def identities(self) -> list[VlmIdentity]:
        """Return the identity of every VLM in the store, the newest last."""
        with explained(self.path):
            return list(identities(self._connection, self.path).values())

    def segments(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return {key: segment (packed image features)} for those of the keys that are stored."""
        return self._look_up("segment", "data", keys)

    def put_segments(
        self, identity: VlmIdentity, values: Sequence[tuple[bytes, bytes]], budget: int
    ) -> bool:
        """Store segments unless all stored ones would exceed `budget` bytes; return whether."""
        with explained(self.path), self._transaction():
            query = "SELECT COALESCE(SUM(LENGTH(data)), 0) FROM segment"
            there = int(self._connection.execute(query).fetchone()[0])
            if there + sum(len(data) for _, data in values) > budget:
                return False
            vlm = self.number(identity)
            rows = [(key, vlm, data) for key, data in values]
            self._connection.executemany("INSERT OR IGNORE INTO segment VALUES (?, ?, ?)", rows)
        return True

    def statistics(self) -> list[Statistics]:
        """Return how much is stored of each VLM."""
        query = """
            SELECT vlm, COUNT(text), COUNT(log_likelihood), COUNT(NULLIF(TRIM(text) = '', 0))
            FROM answer GROUP BY vlm ORDER BY vlm"""
        with explained(self.path):
            named = identities(self._connection, self.path)
            rows = self._connection.execute(query).fetchall()
        return [Statistics(named[vlm], *counts) for vlm, *counts in rows if vlm in named]

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write to the store in one transaction: all changes of the block are made, or none."""
        with explained(self.path), self._transaction():
            yield self._connection

    def number(self, identity: VlmIdentity) -> int:
        """Return the number of a VLM in the store, adding it if new; call it in a transaction."""
        text = identity_text(identity)
        self._connection.execute("INSERT OR IGNORE INTO vlm (identity) VALUES (?)", (text,))
        query = "SELECT id FROM vlm WHERE identity = ?"
        return int(self._connection.execute(query, (text,)).fetchone()[0])

    def prune(self, keep: str) -> int:
        """Remove the answers of every VLM whose revision does not start with `keep`.

        Raises:
            UserError: No revision starts with `keep`: everything would be removed.
        """
        before = self._count()
        with explained(self.path):
            with self._transaction():
                named = identities(self._connection, self.path)
                revisions = {number: identity["revision"] for number, identity in named.items()}
                others = [n for n, name in revisions.items() if not name.startswith(keep)]
                if len(others) == len(revisions):
                    known = ", ".join(sorted({name[:12] for name in revisions.values()}))
                    raise UserError(
                        f"{self.path} holds no VLM whose revision starts with {keep!r}, so nothing "
                        f"was removed: it holds {known or 'none'}."
                    )
                for number in others:
                    for column, table in (("vlm", "answer"), ("vlm", "segment"), ("id", "vlm")):
                        statement = f"DELETE FROM {table} WHERE {column} = ?"
                        self._connection.execute(statement, (number,))
            self._connection.execute("VACUUM")
        return before - self._count()

    def _look_up(self, table: str, column: str, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """Return one column of the rows with these keys, by key."""
        found: dict[bytes, Any] = {}
        with explained(self.path):
            for start in range(0, len(keys), LOOKUP):
                part = keys[start : start + LOOKUP]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, {column} FROM {table} WHERE key IN ({marks})"
                found.update(self._connection.execute(query, part).fetchall())
        return found

    def _count(self) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM answer").fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._writing:  # a connection can have only one transaction at a time
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:  # else a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def is_value(kind: Kind, value: object) -> bool:
    """Return whether a value can be stored: a valid Unicode text, or a finite log-probability."""
    if kind == "answer":
        whole = isinstance(value, str) and len(value) <= LONGEST
        return whole and not any("\ud800" <= sign <= "\udfff" for sign in str(value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return -math.inf < float(value) <= HIGHEST


class Keys:
    """Computes the keys of requests; each example is hashed once."""

    def __init__(self, kind: Kind, identity: VlmIdentity) -> None:
        """Hash the part that all keys share: the kind and the VLM's identity."""
        self._scored = kind == "log_likelihood"
        # A likelihood does not depend on how answers are decoded.
        matters = {k: v for k, v in identity.items() if k != "generation" or not self._scored}
        shared = json.dumps([kind, matters], sort_keys=True).encode()
        self._shared = hashlib.blake2b(shared, digest_size=KEY_BYTES)
        self._shown: dict[Example, bytes] = {}
        self._asked: dict[tuple[Query, str | None], bytes] = {}

    def of(self, request: Request) -> bytes:
        """Return the key of a request; its answer is part of it only for log-likelihoods."""
        key = self._shared.copy()
        key.update(b"".join([self._of_demonstration(e) for e in request.demonstrations]))
        key.update(self._of_query(request.query, request.answer if self._scored else None))
        return key.digest()

    def _of_demonstration(self, example: Example) -> bytes:
        made = self._shown.get(example)
        if made is None:
            made = self._shown[example] = _content(hashed(example).query, example.answer)
        return made

    def _of_query(self, query: Query, answer: str | None) -> bytes:
        made = self._asked.get((query, answer))
        if made is None:
            made = self._asked[query, answer] = _content(hashed_query(query), answer)
        return made


def _content(query: Query, answer: str | None) -> bytes:
    """Return the hash of an image and a question, and of the answer if there is one."""
    content = json.dumps([query.image_sha256, query.question]).encode()
    digest = hashlib.blake2b(content, digest_size=KEY_BYTES)
    if answer is not None:
        digest.update(json.dumps(answer).encode())
    return digest.digest()
