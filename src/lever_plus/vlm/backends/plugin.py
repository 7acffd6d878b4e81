"""A VLM that code of the user's own computes: any object with what `Backend` asks for.

`vlm.kind: plugin` names a factory: an entry point of the group "lever_plus.backends" of an
installed package, or "package.module:factory". It is called with `vlm.options` as keyword
arguments. The back end's identity must say all that its answers depend on, because they are kept
under it.
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
            f"vlm.options: {vlm.factory} cannot be called with them ({error}): name the arguments "
            "that it has."
        ) from error
    return factory


def make_backend(vlm: PluginVlmParams) -> Backend:
    """Return the back end that a factory makes.

    Raises:
        UserError: There is no such factory, it does not take `vlm.options`, or what it returns is
            no back end.
    """
    return checked(find_factory(vlm)(**vlm.options), f"{SETTING}: what {vlm.factory} returned")


def checked(made: Any, what: str) -> Backend:
    """Return a back end of the user's own, if it is one.

    Args:
        made: Any object.
        what: What it is called in errors; they begin with it.

    Raises:
        UserError: It lacks something that `Backend` asks for.
    """
    kind = type(made).__name__
    for name in METHODS:
        if not callable(getattr(made, name, None)):
            raise UserError(
                f"{what}, a {kind}, is no back end: it has no method {name}(requests, done)."
            )
    identity = getattr(made, "identity", None)
    known = dict(identity) if isinstance(identity, Mapping) else {}
    fields = VlmIdentity.__annotations__
    lacking = [key for key in fields if not isinstance(known.get(key), str)]
    if lacking:
        raise UserError(
            f"{what}, a {kind}, is no back end: its identity has no text for {', '.join(lacking)}. "
            "Answers are kept under it, so that it must say all that they depend on."
        )
    if more := [quoted(str(key), 40) for key in known if key not in fields]:
        raise UserError(
            f"{what}, a {kind}, is no back end: its identity has {', '.join(more)} beside "
            f"{', '.join(fields)}: say it in one of those, such as generation."
        )
    for name, wanted in KINDS.items():
        if not isinstance(getattr(made, name, None), wanted):
            raise UserError(
                f"{what}, a {kind}, is no back end: its {name} is no {wanted.__name__} of "
                f"{wanted.__module__}."
            )
    return CheckedBackend(made, cast(VlmIdentity, {key: str(known[key]) for key in fields}), what)


class CheckedBackend:
    """A back end of the user's own, whose every answer is looked at before it counts."""

    def __init__(self, made: Any, identity: VlmIdentity, what: str) -> None:
        """Keep the back end and what its answers depend on, which must not change any more."""
        self._made, self._what = made, what
        self.identity = identity
        self.prompt: PromptFormat = made.prompt
        self.usage = Usage()
        self._count()

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request.

        Raises:
            UserError: The back end gave something that is no text, or not one for each request.
        """
        return self._all(self._made.answers, "answers", _text, requests, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: The back end gave something that is no log-probability, or not one for each
                request.
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
        """Ask, and check what is reported on the way and what is returned."""
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
                        "report positions in the list that it was given, from 0."
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
        """Take over what the back end says of its tokens; the rest is counted elsewhere."""
        whole, run = self._made.usage.tokens_whole, self._made.usage.tokens_run
        counts = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in (whole, run)]
        if not all(counts) or not 0 <= run <= whole:
            raise UserError(
                f"{self._what}: its usage says that {quoted(repr(run), 40)} of "
                f"{quoted(repr(whole), 40)} tokens were run (tokens_run, tokens_whole): they are "
                "counts, and no more are run than there are. Mend the back end."
            )
        self.usage.tokens_whole, self.usage.tokens_run = int(whole), int(run)


def _listed(values: Any, place: str) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        kind = type(values).__name__
        raise UserError(f"{place} gave one {kind} where a list belongs: give one value a request.")
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
            f"{place} gave {shown} for {_asked(request)}, {error}: mend the back end."
        ) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("which is no text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("which has half a character (a lone surrogate)") from error
    return str(value)


def _log_probability(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise ValueError("which is no number")
    number = float(value)
    if number > HIGHEST:
        raise ValueError("which is above 0, the highest log-probability")
    return number if _is_nan(number) else min(0.0, number)


def _is_nan(value: str | float) -> bool:
    """Return whether a value is NaN: what asks for it says that better than this module."""
    return isinstance(value, float) and math.isnan(value)


def _asked(request: Request) -> str:
    return f"{quoted(request.query.question, 80)!r} ({request.query.image})"
