"""Whether sharing prefixes is exact for a model: its own results are compared before it is used."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, Final

import torch

from lever_plus.data.examples import Example
from lever_plus.hub.linear import use_onednn
from lever_plus.vlm.engine.batch import BatchEngine
from lever_plus.vlm.engine.length import TooLongError
from lever_plus.vlm.engine.prefix import PrefixEngine
from lever_plus.vlm.engine.segments import Item, NotSeparableError, Segments
from lever_plus.vlm.prompt import Sample
from lever_plus.vlm.request import Request
from lever_plus.vlm.usage import Usage

TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of log-likelihoods at which prefix reuse counts as exact (a nat's share)."""
TRIED: Final = 3
"""Examples that the engine is tried with: one is asked, after none, one and two of the others."""
LOOKED_THROUGH: Final = 100


def try_engine(
    model: Any,
    plain: BatchEngine,
    make_segments: Callable[[], Segments],
    examples: Sequence[Example],
    usage: Usage,
) -> tuple[PrefixEngine | None, str]:
    """Return an engine that was seen to give the model's own results, or None and why.

    Args:
        model: The VLM; its linear layers are on oneDNN afterwards (see `hub.linear.use_onednn`).
        plain: Runs whole prompts: the reference.
        make_segments: Makes the segments that the engine is to run on.
        examples: `TRIED` examples.
        usage: Gets the tokens that the engine will run; the trial does not count.
    """
    first, *others = examples
    shown = [Request(tuple(others[:n]), first.query, first.answer) for n in range(TRIED)]
    try:
        segments = make_segments()
        segments.check(first)
        alone = torch.tensor([plain.log_likelihoods([request])[0] for request in shown])
        use_onednn(model)
        engine = PrefixEngine(model, segments, Usage())
        segments.prepare(others, [Item(first.query, first.answer)])
        shared = torch.tensor(engine.log_likelihoods(shown))
    except (NotSeparableError, TooLongError, ValueError) as error:
        # Two demonstrations may be too many for what is asked with none.
        return None, str(error)
    difference = (shared - alone).abs().max().item()
    if not difference <= TOLERANCE[model.dtype]:
        return None, f"its likelihoods would differ by {difference:.2g}"
    engine.usage = usage
    return engine, ""


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
