"""A VLM with an answer store: only requests that no stage has made before are computed."""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, cast

from tqdm import tqdm

from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.vlm.prompt import PromptFormat, check_examples, extract_answer
from lever_plus.vlm.request import (
    Ask,
    Backend,
    Instructable,
    Kind,
    Request,
    Told,
    VlmIdentity,
    prefix_order,
)
from lever_plus.vlm.store.answers import Keys, Store, is_value
from lever_plus.vlm.usage import Usage

if TYPE_CHECKING:
    from lever_plus.vlm.lengths import Lengths

Value = TypeVar("Value", str, float)
BLOCK: Final = 20_000
"""How many requests go to the back end at once; this bounds the memory that it needs."""


class StoredVlm:
    """A VLM whose answers are kept in a store; `usage` counts its requests."""

    def __init__(self, backend: Backend, store: Store | None) -> None:
        """Take a back end and a store; without a store every request is computed.

        Raises:
            UserError: The VLM's identity has characters that cannot be printed; a store with it
                could not be read again.
        """
        for name, value in backend.identity.items():
            if not str(value).isprintable():
                raise UserError(
                    f"the VLM's {name} is {value!r}, which has characters that cannot be printed: "
                    "choose another without them."
                )
        self._backend, self._store = backend, store
        self._identity: VlmIdentity | None = None
        self._keys: dict[Kind, Keys] = {}
        self._checked: set[Example | Query] = set()
        self._lengths: Lengths | None = None
        self.usage: Usage = backend.usage
        self._bar = tqdm(total=0, unit="ans", leave=False, disable=None)

    @property
    def identity(self) -> VlmIdentity:
        """Everything that the answers depend on; a server is asked for it once (`Told`)."""
        if self._identity is None:
            known = [] if self._store is None else self._store.identities()
            backend = self._backend
            if isinstance(backend, Told):
                self._identity = backend.identify(known)
            else:
                self._identity = backend.identity
        return self._identity

    @property
    def prompt(self) -> PromptFormat:
        """Style and instruction of its prompts."""
        return self._backend.prompt

    def instructed(self, instruction: str) -> "StoredVlm":
        """Return the same VLM with another instruction and the same store.

        Its answers are kept under another identity; both VLMs count in the same `usage`.

        Args:
            instruction: Text after every question; may be empty.

        Raises:
            UserError: The instruction cannot be in a prompt, or the back end is the user's own and
                has no method `instructed`.
        """
        if instruction == self.prompt.instruction:
            return self
        if not isinstance(self._backend, Instructable):
            raise UserError(
                "the VLM is a back end of your own, without a method `instructed`: no other "
                "instruction can be tried. Set evaluate.instructions to []."
            )
        other = StoredVlm(self._backend.instructed(instruction), self._store)
        other._bar = self._bar
        return other

    def answers(self, requests: Sequence[Request], *, description: str = "answers") -> list[str]:
        """Return the answer to each request; equal requests are computed once.

        The store keeps the text as generated; the answer is cut out of it here.
        """
        texts = self._all("answer", requests, self._backend.answers, description)
        style = self._backend.prompt.style
        return [extract_answer(text, style) for text in texts]

    def log_likelihoods(
        self, requests: Sequence[Request], *, description: str = "likelihoods"
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: One of them is not a finite number; those before it are stored.
        """
        return self._all("log_likelihood", requests, self._backend.log_likelihoods, description)

    def prompt_tokens(self, requests: Sequence[Request]) -> list[int] | None:
        """Return how many tokens each prompt has, image tokens included, without asking the VLM.

        None if that is not known: for a server, whose tokenizer is not here; for a back end of your
        own; and for a processor whose prompts are not the sum of their turns.

        Raises:
            UserError: A text cannot be in a prompt, or an image cannot be read.
        """
        processor = getattr(self._backend, "processor", None)
        if processor is None:
            return None
        if self._lengths is None:
            from lever_plus.vlm.lengths import (
                Lengths,
            )  # needs torch, which is not installed for servers alone

            self._lengths = Lengths(processor, self.prompt)
        return self._lengths.of(requests)

    def check(self, examples: Iterable[Example | Query]) -> None:
        """Refuse texts that would act as a mark in a prompt, before anything is asked.

        Each request is checked anyway. Call this first with all examples of a long task, so that an
        error comes at its start.

        Args:
            examples: Examples, whose answers are checked too, or queries.

        Raises:
            UserError: See `prompt.check_examples`.
        """
        fresh = [each for each in dict.fromkeys(examples) if each not in self._checked]
        processor = getattr(self._backend, "processor", None)
        check_examples(fresh, self._backend.prompt, processor)
        self._checked.update(fresh)

    def _all(
        self,
        kind: Kind,
        requests: Sequence[Request],
        ask: Ask[Value],
        description: str,
    ) -> list[Value]:
        numbers: dict[Request, int] = {}
        places = [numbers.setdefault(request, len(numbers)) for request in requests]
        different = list(numbers)
        self.check(example for request in different for example in request.demonstrations)
        self.check(_with_answer(request) for request in different)
        self._announce(len(different), description)
        begun = time.monotonic()
        try:
            values: dict[int, Value] = self._answered(kind, different, ask)
        finally:
            self.usage.seconds += time.monotonic() - begun
        return [values[place] for place in places]

    def _answered(
        self, kind: Kind, requests: Sequence[Request], ask: Ask[Value]
    ) -> dict[int, Value]:
        """Take the answers that the store has; ask for the rest in prefix order, in blocks."""
        keys = self._keys_of(kind, requests)
        values: dict[int, Value] = self._stored(kind, keys, range(len(requests)))
        rest = [i for i in range(len(requests)) if i not in values]
        # In prefix order, so that the prompts of a block share as much as possible.
        order = [rest[i] for i in prefix_order([requests[i] for i in rest])]
        for start in range(0, len(order), BLOCK):
            block = order[start : start + BLOCK]
            if start:  # another process may have answered some of them meanwhile
                values.update(self._stored(kind, keys, block))
                block = [i for i in block if i not in values]
            values.update(self._asked(kind, requests, keys, block, ask))
        return values

    def _announce(self, requests: int, description: str) -> None:
        """Add requests to the stage's progress bar, which is shown in a terminal only."""
        self._bar.total += requests
        self._bar.set_description_str(description, refresh=False)

    def _keys_of(self, kind: Kind, requests: Sequence[Request]) -> list[bytes]:
        """Return the key of each request; an empty list without a store."""
        if self._store is None:
            return []
        keys = self._keys.setdefault(kind, Keys(kind, self.identity))
        return [keys.of(request) for request in requests]

    def _stored(
        self, kind: Kind, keys: Sequence[bytes], numbers: Sequence[int]
    ) -> dict[int, Value]:
        """Return the values that the store has for some requests, by number."""
        if self._store is None:
            return {}
        found = self._store.get(kind, [keys[i] for i in numbers])
        values = {i: cast(Value, found[keys[i]]) for i in numbers if keys[i] in found}
        self.usage.hits += len(values)
        self._count(values.values())
        return values

    def _asked(
        self,
        kind: Kind,
        requests: Sequence[Request],
        keys: Sequence[bytes],
        block: Sequence[int],
        ask: Ask[Value],
    ) -> dict[int, Value]:
        """Ask the requests of a block, and store each chunk as soon as it is answered."""

        def done(indices: Sequence[int], answers: Sequence[Value]) -> None:
            pairs = [(block[i], value) for i, value in zip(indices, answers, strict=True)]
            bad = [i for i, value in pairs if not is_value(kind, value)]
            if self._store is not None:
                kept = [(keys[i], value) for i, value in pairs if is_value(kind, value)]
                self._store.put(kind, self._made_by(kind), kept)
            if bad:
                raise _no_value(kind, requests[bad[0]])
            self._count(answers)

        if not block:
            return {}
        return dict(zip(block, ask([requests[i] for i in block], done), strict=True))

    def _made_by(self, kind: Kind) -> VlmIdentity:
        """Return the identity under which new values are stored."""
        return self._backend.recorded(kind) if isinstance(self._backend, Told) else self.identity

    def _count(self, values: Collection[str | float]) -> None:
        self.usage.requests += len(values)
        self.usage.empty += sum(
            1 for value in values if isinstance(value, str) and not value.strip()
        )
        self._bar.update(len(values))
        self._bar.set_postfix_str(
            f"{self.usage.hits / max(1, self.usage.requests):.0%} stored, "
            f"{self.usage.saved:.0%} tokens saved",
            refresh=False,
        )


def _with_answer(request: Request) -> Example | Query:
    """Return the query, with the answer if its likelihood is asked for."""
    query = request.query
    if request.answer is None:
        return query
    return Example(query.image, query.question, request.answer, image_sha256=query.image_sha256)


def _no_value(kind: Kind, request: Request) -> UserError:
    """Return the error for a value that cannot be stored, such as a log-likelihood that is NaN."""
    shown = [example.question_id for example in request.demonstrations]
    asked = f"{request.query.question!r} ({request.query.image}) after demonstrations {shown}"
    if kind == "answer":
        return UserError(
            f"the VLM's answer to {asked} is not a text that can be stored: the answers before it "
            "are stored. Check what the VLM's server or back end returns."
        )
    return UserError(
        f"the VLM's log-likelihood of {request.answer!r} as the answer to {asked} is not a "
        "finite number up to 0: a more precise vlm.dtype (float32) usually helps. The answers "
        "before it are stored."
    )
