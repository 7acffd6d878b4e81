"""A trained selector in DSPy: a module that chooses demonstrations for every question.

    answer = LeverPlusPredict("image: dspy.Image, question: str -> answer: str", selector, pool)
    answer(image=dspy.Image.from_path("photo.png"), question="What is the brindle?").answer

The module calls `dspy.Predict` and gives it demonstrations with each call, so adapters, language
models, `dspy.Evaluate`, `save` and `load` all work as they do with `dspy.Predict`.
"""

from collections.abc import Sequence
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
    """Demonstrations can't be chosen; the message says why, and what to do."""


class LeverPlusPredict(dspy.Module):  # type: ignore[misc]
    """Fills a signature that asks a question about an image.

    Attributes:
        predict: The `dspy.Predict` that is called. Its own demonstrations are not shown.
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
    ) -> None:
        """Check the signature, and prepare the pool.

        Args:
            signature: A signature with an input field for the image, one for the question, and an
                output field for the answer. It may have more fields; demonstrations leave them out.
            selector: Any selector, for example from `load_selector`.
            pool: The examples to choose from, or a `LivePool` of this selector.
            shots: How many demonstrations to choose; a selector that `stops` may choose fewer.
            image: Name of the image's field (a `dspy.Image`).
            question: Name of the question's field (a `str`).
            answer: Name of the answer's field (a `str`).

        Raises:
            SelectionError: The signature lacks a field, or an image of the pool can't be read.
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
                    f"the signature needs {name!r} but has the inputs "
                    f"{', '.join(found.input_fields)} and the outputs "
                    f"{', '.join(found.output_fields)}: say which fields to use "
                    "(image=..., question=..., answer=...)."
                )
        try:
            self._chooser = Chooser(selector, pool, shots)
        except UserError as error:
            raise SelectionError(str(error)) from error

    def forward(self, **inputs: Any) -> Any:
        """Return the prediction for a question, made with chosen demonstrations.

        Args:
            **inputs: The input fields of the signature.

        Raises:
            SelectionError: The image or the question is missing, the image can't be opened, or the
                pool is too small.
        """
        return self.predict(demos=self.demonstrations(**inputs), **inputs)

    async def aforward(self, **inputs: Any) -> Any:
        """Return the same as `forward`, but call the language model asynchronously."""
        return await self.predict.acall(demos=self.demonstrations(**inputs), **inputs)

    def demonstrations(self, **inputs: Any) -> list[Any]:
        """Return the demonstrations for a question as `dspy.Example`s; raises like `forward`."""
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
