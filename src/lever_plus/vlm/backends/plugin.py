"""A VLM that code of the user's own computes: any object with what `Backend` asks for.

`vlm.kind: plugin` names a factory: an entry point of the group "lever_plus.backends" of an
installed package, or "package.module:factory". It is called with `vlm.options` as keyword
arguments. The back end's identity must say all that its answers depend on, because they are kept
under it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from lever_plus.config.plugins import find
from lever_plus.config.vlm import PluginVlmParams
from lever_plus.errors import UserError
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Backend, VlmIdentity
from lever_plus.vlm.usage import Usage

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
    known = identity if isinstance(identity, Mapping) else {}
    lacking = [key for key in VlmIdentity.__annotations__ if not isinstance(known.get(key), str)]
    if lacking:
        raise UserError(
            f"{what}, a {kind}, is no back end: its identity has no text for {', '.join(lacking)}. "
            "Answers are kept under it, so that it must say all that they depend on."
        )
    for name, wanted in KINDS.items():
        if not isinstance(getattr(made, name, None), wanted):
            raise UserError(
                f"{what}, a {kind}, is no back end: its {name} is no {wanted.__name__} of "
                f"{wanted.__module__}."
            )
    backend: Backend = made
    return backend
