"""Whether sharing prefixes is exact for a model: its own results are compared before it is used.

In float32, whatever the model's own type: in bfloat16 a wrong engine differs from whole prompts no
more than a right one does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice, takewhile
from typing import Any, Final

import torch

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.hub.linear import use_onednn
from lever_plus.hub.precision import in_float32
from lever_plus.vlm.engine.batch import BatchEngine
from lever_plus.vlm.engine.caches import Layers
from lever_plus.vlm.engine.choice import Choice
from lever_plus.vlm.engine.features import NotSeparableError
from lever_plus.vlm.engine.language import LanguageModel
from lever_plus.vlm.engine.length import TooLongError, positions
from lever_plus.vlm.engine.prefix import PrefixEngine
from lever_plus.vlm.engine.segments import Segments
from lever_plus.vlm.prompt import Sample
from lever_plus.vlm.request import Request
from lever_plus.vlm.usage import Usage

TOLERANCE: Final = 1e-4
"""Largest difference of log-likelihoods, in float32, at which sharing counts as exact."""
TRIED: Final = 3
"""Examples that the engine is tried with."""
TOKENS: Final = 3
"""Tokens that it generates."""
LONGEST: Final = 8192
"""Tokens of the longest prompt that is run to look beyond a sliding window."""
LOOKED_THROUGH: Final = 100
MakeSegments = Callable[[LanguageModel, Example | None, bool], Segments]


def try_engine(
    model: Any,
    plain: BatchEngine,
    make_segments: MakeSegments,
    examples: Sequence[Example],
    usage: Usage,
) -> tuple[PrefixEngine | None, str]:
    """Return an engine that was seen to give the model's own results, or None and why.

    Args:
        model: The VLM; its linear layers are on oneDNN afterwards (see `hub.linear.use_onednn`).
        plain: Runs whole prompts: the reference.
        make_segments: Makes segments, given what captures them, the turn behind which they are
            taken, and whether they may be kept in a store.
        examples: `TRIED` examples.
        usage: Gets the tokens that the engine will run; the trial does not count.

    Raises:
        UserError: An image cannot be read, or a text cannot be in a prompt.
    """
    hooked: list[LanguageModel] = []
    try:
        ends, window = set(Choice(model).ends.tolist()), Layers(model.get_decoder()).window
        requests = _requests(plain, window, positions(model), examples)
        with in_float32(model):
            expected = _whole(plain, requests, ends)
            use_onednn(model)
            language = LanguageModel(model)
            hooked.append(language)
            before, why = _fitting(language, make_segments, requests, expected)
        if not why:
            segments = make_segments(language, before, True)
            segments.check(examples[0])
            return PrefixEngine(language, segments, usage), ""
    except TooLongError as error:  # two demonstrations, where none may be asked for
        why = str(error)
    except UserError:
        _close(hooked)
        raise
    except Exception as error:  # of whatever the library and the model are made of
        why = _first_line(error)
    _close(hooked)
    return None, why


def _close(hooked: Sequence[LanguageModel]) -> None:
    for language in hooked:
        language.close()


def _requests(
    plain: BatchEngine, window: int | None, most: int | None, examples: Sequence[Example]
) -> list[Request]:
    """Return requests in which faults show.

    Turns of several lengths run together, an image stands in the first turn and after others, and
    one prompt is longer than a sliding window.

    Raises:
        ValueError: That would be too long.
    """
    asked, one, other = examples
    other = replace(other, question=f"{other.question} {other.question}")
    shown = [(), (one,), (other,), (one, other), (other, one)]
    if window is not None and (most is None or window < most):
        alone, after = (
            plain.inputs([Request(shown[n], asked.query)])["input_ids"].shape[1] for n in (0, 1)
        )
        turns = window // (after - alone) + 2
        if turns * (after - alone) > min(LONGEST, most or LONGEST):
            raise ValueError(f"its window of {window} tokens is longer than can be tried")
        shown.append(tuple(islice(cycle((one, other)), turns)))
    requests = [Request(demonstrations, asked.query, asked.answer) for demonstrations in shown]
    return [*requests, Request((one,), other.query, other.answer)]


def _whole(
    plain: BatchEngine, requests: Sequence[Request], ends: set[int]
) -> tuple[torch.Tensor, list[list[int]]]:
    """Return likelihoods and the first tokens of answers, from whole prompts one by one."""
    likely = torch.tensor([plain.log_likelihoods([request])[0] for request in requests])
    answers = [plain.generate([request], TOKENS)[0] for request in requests]
    return likely, [list(takewhile(lambda token: token not in ends, ids)) for ids in answers]


def _fitting(
    language: LanguageModel,
    make_segments: MakeSegments,
    requests: Sequence[Request],
    expected: tuple[torch.Tensor, list[list[int]]],
) -> tuple[Example | None, str]:
    """Return the turn behind which others are to be taken, if any, and why none serves."""
    turn = requests[1].demonstrations[0]
    reasons = []
    for before in (None, turn):
        segments = make_segments(language, before, False)
        reasons.append(_difference(language, segments, requests, expected))
        if not reasons[-1]:
            return before, ""
    return None, reasons[0]


def _difference(
    language: LanguageModel,
    segments: Segments,
    requests: Sequence[Request],
    expected: tuple[torch.Tensor, list[list[int]]],
) -> str:
    """Return in what an engine differs from whole prompts; nothing if it does not."""
    likely, answers = expected
    try:
        segments.check(requests[1].demonstrations[0])
        engine = PrefixEngine(language, segments, Usage())
        shown = {example for request in requests for example in request.demonstrations}
        segments.prepare(shown, {segments.item(request) for request in requests})
    except NotSeparableError as error:
        return str(error)
    difference = (torch.tensor(engine.log_likelihoods(requests)) - likely).abs().max().item()
    if not difference <= TOLERANCE:
        return f"its likelihoods would differ by {difference:.2g}"
    return "" if engine.generate(requests, TOKENS) == answers else "its answers would differ"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def examples_of(requests: Sequence[Request]) -> list[Example]:
    """Return `TRIED` examples of the first requests, over again where there are fewer.

    A query that has no answer gets one: any text will do.
    """
    some = requests[:LOOKED_THROUGH]
    found = dict.fromkeys(example for request in some for example in request.demonstrations)
    for request in some:
        query = request.query
        found.setdefault(
            Example(
                image=query.image,
                question=query.question,
                answer=request.answer or Sample.answer,
                image_sha256=query.image_sha256,
            )
        )
    return list(islice(cycle(found), TRIED))
