"""Whether the VLM that params.yaml names reads every question and answer as text, before it runs.

The check changes no result; whatever opens the VLM makes it again, see `StoredVlm.check`. Here it
is made with what is at hand when data are prepared.
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

    prompt: style and instruction; processor: None where it is not at hand; why: then, why not.
    """

    prompt: PromptFormat
    processor: Any
    why: str

    @property
    def limits(self) -> str:
        """What the check cannot see: the end of a sentence, empty if that is nothing."""
        return f", as far as marks of known VLMs go: {self.why}" if self.why else ""

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse examples that cannot be in prompts; UserError as `check_examples`."""
        check_examples(examples, self.prompt, self.processor)

    def check_instructions(self, texts: Iterable[str]) -> None:
        """Refuse texts that cannot be the instruction of prompts; UserError as `check_examples`."""
        for text in texts:
            check_examples((), replace(self.prompt, instruction=text), self.processor)


def reader_of(vlm: VlmParams) -> Reader:
    """Return how the VLM of params.yaml reads prompts.

    Raises:
        UserError: No prompt can be made with its processor: it has no chat template and the style
            is "chat", its template fails, or the instruction is no text.
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
