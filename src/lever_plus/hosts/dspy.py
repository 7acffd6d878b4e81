"""A trained selector in DSPy: a module that shows every question its own demonstrations.

    answer = LeverPlusPredict("image: dspy.Image, question: str -> answer: str", selector, pool)
    answer(image=dspy.Image.from_path("photo.png"), question="What is the brindle?").answer

A signature is filled by `dspy.Predict`, whose demonstrations are given with each call; so every
adapter, language model, `dspy.Evaluate`, and `save` and `load` work as they do with it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lever_plus.data.examples import Example
from lever_plus.errors import UserError, needs
from lever_plus.hosts.chooser import Chooser
from lever_plus.selectors.base import Selector
from lever_plus.selectors.live_pool import LivePool

with needs("dspy", "lever_plus.hosts.dspy"):
    import dspy
    from dspy.utils.exceptions import DSPyError


class SelectionError(DSPyError, UserError):  # type: ignore[misc]
    """Demonstrations cannot be chosen; it says why, and what to do."""


class LeverPlusPredict(dspy.Module):  # type: ignore[misc]
    """Fills a signature that asks about an image.

    Attributes:
        predict: The `dspy.Predict` that does it. Demonstrations of its own are not shown.
    """

    def __init__(
        self,
        signature: Any,
        selector: Selector,
        pool: Sequence[Example] | LivePool,
        shots: int = 2,
        *,
        image: str = "image",
        question: str = "question",
        answer: str = "answer",
        folder: str | Path | None = None,
    ) -> None:
        """Keep all of it.

        Args:
            signature: With an input field for the image, one for the question, and an output field
                for the answer; it may have more, which demonstrations leave out.
            selector: Any selector, such as `load_selector` returns.
            pool: What it chooses from.
            shots: How many it chooses; a selector that `stops` may choose fewer.
            image: Name of the field, a `dspy.Image`.
            question: Name of the field, a text.
            answer: Name of the field, a text.
            folder: Gets the images of questions; None: a temporary one.

        Raises:
            SelectionError: The signature lacks a field, or an image of the pool cannot be read.
        """
        super().__init__()
        self.predict = dspy.Predict(signature)
        self._fields = {"image": image, "question": question, "answer": answer}
        found = self.predict.signature
        for name, fields in (
            (image, found.input_fields),
            (question, found.input_fields),
            (answer, found.output_fields),
        ):
            if name not in fields:
                raise SelectionError(
                    f"the signature has no field {name!r} there: it has the inputs "
                    f"{', '.join(found.input_fields)} and the outputs "
                    f"{', '.join(found.output_fields)}. Name its fields "
                    "(image=..., question=..., answer=...)."
                )
        try:
            self._chooser = Chooser(selector, pool, shots, folder)
        except UserError as error:
            raise SelectionError(str(error)) from error

    def forward(self, **inputs: Any) -> Any:
        """Return the prediction for a question, after its demonstrations.

        Raises:
            SelectionError: There is no image or question, the image does not open, or the pool is
                too small.
        """
        return self.predict(demos=self.demonstrations(**inputs), **inputs)

    async def aforward(self, **inputs: Any) -> Any:
        """Return the same as `forward`, and wait for the language model asynchronously."""
        return await self.predict.acall(demos=self.demonstrations(**inputs), **inputs)

    def demonstrations(self, **inputs: Any) -> list[Any]:
        """Return what is shown before a question, as `dspy.Example`s; errors as `forward`."""
        image = inputs.get(self._fields["image"])
        if isinstance(image, dspy.Image):
            image = image.url
        try:
            chosen = self._chooser.choose(image, inputs.get(self._fields["question"]))
            return [self._shown(example) for example in chosen]
        except UserError as error:
            raise SelectionError(str(error)) from error

    def _shown(self, example: Example) -> Any:
        shown = dspy.Image(self._chooser.url(example)), example.question, example.answer
        names = list(self._fields.values())
        return dspy.Example(**dict(zip(names, shown, strict=True))).with_inputs(*names[:2])
