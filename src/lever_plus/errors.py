"""Errors that are meant for people: one sentence that says what is wrong, where, and what to do."""


class UserError(Exception):
    """A problem with the input or the settings; the CLI prints its message without a traceback."""


class PointerError(UserError, KeyError):
    """A pointer names an example that is not in its query's pool, or names one twice."""

    def __str__(self) -> str:
        """Return the message unquoted (KeyError would print its repr)."""
        return str(self.args[0])
