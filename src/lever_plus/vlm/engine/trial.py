"""Whether sharing prefixes is exact for a model: compared with whole prompts before it is used.

The comparison is in float32, whatever the model's own type: in bfloat16 a wrong engine may differ
from whole prompts no more than a right one.
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
"""Largest difference of mean log-likelihoods, in nats, at which sharing counts as exact."""
TRIED: Final = 3
"""How many examples the engine is tried with."""
TOKENS: Final = 3
"""How many tokens it generates for each request."""
LONGEST: Final = 8192
"""Most tokens in the prompt that is made longer than a sliding window."""
LOOKED_THROUGH: Final = 100
"""Among how many requests the examples are looked for."""
MakeSegments = Callable[[LanguageModel, Example | None, bool], Segments]


def try_engine(
    model: Any,
    plain: BatchEngine,
    make_segments: MakeSegments,
    examples: Sequence[Example],
    usage: Usage,
) -> tuple[PrefixEngine | None, str]:
    """Return an engine whose results equal the model's own, or None and the reason.

    Args:
        model: The VLM; afterwards its linear layers use oneDNN (see `hub.linear.use_onednn`).
        plain: Runs whole prompts, which the engine is compared with.
        make_segments: Makes `Segments`, given the language model, the turn before (see there), and
            whether they may be kept in a store.
        examples: `TRIED` examples.
        usage: Counts the tokens that the engine will run; the trial itself is not counted.

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
    except TooLongError as error:  # the trial shows two demonstrations; the requests may show none
        why = str(error)
    except UserError:
        _close(hooked)
        raise
    except Exception as error:  # any error of the library or of the model's code
        why = _first_line(error)
    _close(hooked)
    return None, why


def _close(hooked: Sequence[LanguageModel]) -> None:
    for language in hooked:
        language.close()


def _requests(
    plain: BatchEngine, window: int | None, most: int | None, examples: Sequence[Example]
) -> list[Request]:
    """Return requests that bring faults to light.

    Turns of several lengths run together, images are in the first turn and in later ones, and one
    prompt is longer than the sliding window, if there is one.

    Raises:
        ValueError: A prompt beyond the window would be too long.
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
    """Return log-likelihoods and the first tokens of answers, from whole prompts one by one."""
    likely = torch.tensor([plain.log_likelihoods([request])[0] for request in requests])
    answers = [plain.generate([request], TOKENS)[0] for request in requests]
    return likely, [list(takewhile(lambda token: token not in ends, ids)) for ids in answers]


def _fitting(
    language: LanguageModel,
    make_segments: MakeSegments,
    requests: Sequence[Request],
    expected: tuple[torch.Tensor, list[list[int]]],
) -> tuple[Example | None, str]:
    """Return the turn before (see `Segments`), if one is needed, and why none works, or ""."""
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
    """Return how an engine's results differ from those of whole prompts; "" if they do not."""
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
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def examples_of(requests: Sequence[Request]) -> list[Example]:
    """Return `TRIED` examples of the first requests; if there are fewer, some repeatedly.

    A query without an answer gets one; any text will do.
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
