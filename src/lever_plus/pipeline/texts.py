"""A check, before the VLM runs, that it will read every question and answer as plain text.

The check changes no result. It is repeated whenever the VLM is opened, see `StoredVlm.check`. Here
it runs early, with as much of the VLM as is available when data are prepared.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from lever_plus.config.vlm import HuggingFaceVlmParams, OpenAiVlmParams, VlmParams
from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.hub.loading import explained, load_processor
from lever_plus.vlm.prompt import CHAT, PromptFormat, check_examples


class Reader(NamedTuple):
    """How a VLM reads prompts.

    Attributes:
        prompt: Style and instruction.
        processor: The VLM's processor; None if it is not available here.
        why: Why the processor is not available; empty if it is.
    """

    prompt: PromptFormat
    processor: Any
    why: str

    @property
    def limits(self) -> str:
        """What limits the check, as the end of a sentence; empty if nothing does."""
        return f", but only for special tokens of known VLMs: {self.why}" if self.why else ""

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse examples that cannot be in prompts; raises UserError like `check_examples`."""
        check_examples(examples, self.prompt, self.processor)

    def check_instructions(self, texts: Iterable[str]) -> None:
        """Refuse texts that can't be an instruction; raises UserError like `check_examples`."""
        for text in texts:
            check_examples((), replace(self.prompt, instruction=text), self.processor)


def reader_of(vlm: VlmParams) -> Reader:
    """Return how the VLM of params.yaml reads prompts.

    Raises:
        UserError: No prompt can be made with its processor: the style is "chat" but there is no
            chat template, the template fails, or the instruction is not plain text.
    """
    if isinstance(vlm, OpenAiVlmParams):
        prompt = PromptFormat(instruction=vlm.instruction)
        return Reader(prompt, None, "a server renders its prompts")
    if not isinstance(vlm, HuggingFaceVlmParams):
        return Reader(CHAT, None, "your own code renders its prompts")
    prompt = PromptFormat(vlm.prompt.style, vlm.prompt.instruction)

    try:
        processor = load_processor(vlm.path, vlm.revision)
    except UserError as error:
        return Reader(prompt, None, str(error))
    with explained(vlm.path):
        check_examples((), prompt, processor)
    return Reader(prompt, processor, "")
