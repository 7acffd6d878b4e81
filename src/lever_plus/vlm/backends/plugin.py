"""A VLM run by the user's own code: any object that has all parts of `Backend`.

With `vlm.kind: plugin`, `vlm.factory` names a factory: an entry point in the group
"lever_plus.backends" of an installed package, or "package.module:factory". It is called with
`vlm.options` as keyword arguments. The back end's identity must cover everything that its answers
depend on, because answers are stored under it.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Final, TypeVar, cast

import numpy as np

from lever_plus.config.plugins import find
from lever_plus.config.vlm import PluginVlmParams
from lever_plus.errors import UserError
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import HIGHEST, Backend, Done, Request, VlmIdentity, ignore
from lever_plus.vlm.usage import Usage

Value = TypeVar("Value", str, float)
GROUP: Final = "lever_plus.backends"
SETTING: Final = "vlm.factory"
KINDS: Final = {"prompt": PromptFormat, "usage": Usage}
METHODS: Final = ("answers", "log_likelihoods")


def find_factory(vlm: PluginVlmParams) -> Callable[..., Any]:
    """Return the factory of a back end.

    Raises:
        UserError: There is no such factory, or it does not take `vlm.options`.
    """
    factory: Callable[..., Any] = find(GROUP, vlm.factory, {}, what=SETTING)
    try:
        inspect.signature(factory).bind(**vlm.options)
    except TypeError as error:
        raise UserError(
            f"vlm.options: {vlm.factory} cannot be called with them ({error}): use the names of "
            "its arguments."
        ) from error
    return factory


def make_backend(vlm: PluginVlmParams) -> Backend:
    """Return the back end that the factory returns.

    Raises:
        UserError: There is no such factory, it does not take `vlm.options`, or it does not return
            a back end.
    """
    return checked(find_factory(vlm)(**vlm.options), f"{SETTING}: what {vlm.factory} returned")


def checked(made: Any, what: str) -> Backend:
    """Return a user's own back end, wrapped so that its answers are checked.

    Args:
        made: Any object.
        what: The name of the object, with which errors begin.

    Raises:
        UserError: The object lacks a part of `Backend`.
    """
    kind = type(made).__name__
    for name in METHODS:
        if not callable(getattr(made, name, None)):
            raise UserError(
                f"{what}, a {kind}, is not a back end: it has no method {name}(requests, done)."
            )
    identity = getattr(made, "identity", None)
    known = dict(identity) if isinstance(identity, Mapping) else {}
    fields = VlmIdentity.__annotations__
    lacking = [key for key in fields if not isinstance(known.get(key), str)]
    if lacking:
        raise UserError(
            f"{what}, a {kind}, is not a back end: its identity has no text for "
            f"{', '.join(lacking)}. Answers are stored under it, so it must say everything that "
            "they depend on."
        )
    if more := [quoted(str(key), 40) for key in known if key not in fields]:
        raise UserError(
            f"{what}, a {kind}, is not a back end: its identity has {', '.join(more)} besides "
            f"{', '.join(fields)}: put it into one of those, such as generation."
        )
    for name, wanted in KINDS.items():
        if not isinstance(getattr(made, name, None), wanted):
            raise UserError(
                f"{what}, a {kind}, is not a back end: its {name} is not a {wanted.__name__} of "
                f"{wanted.__module__}."
            )
    return CheckedBackend(made, cast(VlmIdentity, {key: str(known[key]) for key in fields}), what)


class CheckedBackend:
    """A user's own back end whose answers are all checked before they are used."""

    def __init__(self, made: Any, identity: VlmIdentity, what: str) -> None:
        """Take the back end, and its identity, which must not change from now on."""
        self._made, self._what = made, what
        self.identity = identity
        self.prompt: PromptFormat = made.prompt
        self.usage = Usage()
        self._count()

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request.

        Raises:
            UserError: The back end gave something other than one text for each request.
        """
        return self._all(self._made.answers, "answers", _text, requests, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: The back end gave something other than one log-probability for each request.
        """
        return self._all(
            self._made.log_likelihoods, "log_likelihoods", _log_probability, requests, done
        )

    def _all(
        self,
        ask: Callable[..., Any],
        method: str,
        check: Callable[[Any], Value],
        requests: Sequence[Request],
        done: Done[Value],
    ) -> list[Value]:
        """Ask, and check all values, both those reported on the way and those returned."""
        reported: dict[int, Value] = {}
        place = f"{self._what}.{method}"

        def checked_done(indices: Sequence[int], answers: Sequence[Any]) -> None:
            numbers, given = _listed(indices, place), _listed(answers, place)
            if len(numbers) != len(given):
                raise UserError(
                    f"{place} reported {len(given)} values for {len(numbers)} requests: report one "
                    "for each."
                )
            fresh: dict[int, Value] = {}
            for number, value in zip(numbers, given, strict=True):
                if not _is_number_of(number, len(requests)):
                    raise UserError(
                        f"{place} reported a value for request {number!r} of {len(requests)}: "
                        "report positions in the list of requests, from 0."
                    )
                if number in reported or number in fresh:
                    raise UserError(f"{place} reported request {number} twice: report it once.")
                fresh[int(number)] = _checked_value(check, value, place, requests[number])
            reported.update(fresh)
            done(list(fresh), list(fresh.values()))

        returned = _listed(ask(requests, checked_done), place)
        self._count()
        if len(returned) != len(requests):
            raise UserError(
                f"{place} returned {len(returned)} values for {len(requests)} requests: return one "
                "for each, in their order."
            )
        values = [
            _checked_value(check, value, place, request)
            for value, request in zip(returned, requests, strict=True)
        ]
        for number, value in reported.items():
            if values[number] != value and not _is_nan(value):
                raise UserError(
                    f"{place} reported {value!r} for {_asked(requests[number])}, and returned "
                    f"{values[number]!r}: they must be the same."
                )
        if rest := [number for number in range(len(values)) if number not in reported]:
            done(rest, [values[number] for number in rest])
        return values

    def _count(self) -> None:
        """Copy the back end's own counts of tokens; other figures are counted elsewhere."""
        whole, run = self._made.usage.tokens_whole, self._made.usage.tokens_run
        counts = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in (whole, run)]
        if not all(counts) or not 0 <= run <= whole:
            raise UserError(
                f"{self._what}: its usage says that {quoted(repr(run), 40)} of "
                f"{quoted(repr(whole), 40)} tokens were run (tokens_run, tokens_whole): both must "
                "be counts, and tokens_run at most tokens_whole. Correct the back end."
            )
        self.usage.tokens_whole, self.usage.tokens_run = int(whole), int(run)


def _listed(values: Any, place: str) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        kind = type(values).__name__
        raise UserError(
            f"{place} gave one {kind} instead of a list: give one value for each request."
        )
    return list(values)


def _is_number_of(number: Any, count: int) -> bool:
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    return whole and 0 <= int(number) < count


def _checked_value(
    check: Callable[[Any], Value], value: Any, place: str, request: Request
) -> Value:
    try:
        return check(value)
    except (ValueError, TypeError, OverflowError) as error:
        shown = quoted(repr(value), 80)
        raise UserError(
            f"{place} gave {shown} for {_asked(request)}, {error}: correct the back end."
        ) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("which is not a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("which has half a character (a lone surrogate)") from error
    return str(value)


def _log_probability(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise ValueError("which is not a number")
    number = float(value)
    if number > HIGHEST:
        raise ValueError("which is above 0, the highest log-probability")
    return number if _is_nan(number) else min(0.0, number)


def _is_nan(value: str | float) -> bool:
    """Return whether a value is NaN. It is let through: `StoredVlm` has a better error for it."""
    return isinstance(value, float) and math.isnan(value)


def _asked(request: Request) -> str:
    return f"{quoted(request.query.question, 80)!r} ({request.query.image})"
