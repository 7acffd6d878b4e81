"""Errors that are meant for people: one sentence that says what is wrong, where, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A problem with the input or the settings; the CLI prints its message without a traceback."""


class PointerError(UserError, KeyError):
    """A pointer names an example that is not in its query's pool, or names one twice."""

    def __str__(self) -> str:
        """Return the message unquoted (KeyError would print its repr)."""
        return str(self.args[0])


@contextmanager
def needs(extra: str, purpose: str, instead: str = "") -> Iterator[None]:
    """Import an optional extra's packages in this block, and say how to install what is missing.

        with needs("ann", "pool.search: approximate", "set it to exact"):
            import faiss

    Args:
        extra: Key of pyproject.toml's optional dependencies.
        purpose: What needs the packages: a setting or a command.
        instead: What to do without them, if there is a way.

    Raises:
        UserError: A package is missing, or cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        without = f", or {instead}" if instead else ""
        raise UserError(
            f"{purpose} needs the extra {extra} ({error}): pip install 'lever-plus[{extra}]'"
            f"{without}."
        ) from error
