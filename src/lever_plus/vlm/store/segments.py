"""Image features and token embeddings that outlive a process: computed once an image, not a stage.

A segment is kept beside the answers, under the VLM's identity and the example's image, question and
answer. Large models make megabytes an image, so what is kept has a budget; the rest is computed
again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from lever_plus.data.examples import Example
from lever_plus.vlm.engine.segments import Segment
from lever_plus.vlm.request import VlmIdentity
from lever_plus.vlm.store.answers import KEY_BYTES, Store

MEGABYTE: Final = 2**20


class KeptSegments:
    """The segments of one VLM in a store."""

    def __init__(self, store: Store, identity: VlmIdentity, megabytes: int) -> None:
        """Keep at most `megabytes` of segments in the store, those of other VLMs included."""
        self._store, self._identity = store, identity
        self._budget, self._full = megabytes * MEGABYTE, megabytes == 0
        shared = {k: v for k, v in identity.items() if k != "generation"}
        self._shared = json.dumps(shared, sort_keys=True)

    def get(self, examples: Sequence[Example]) -> dict[int, Segment]:
        """Return the kept segments of these examples, by id."""
        keys = {self._key(example): example.question_id for example in examples}
        found = self._store.segments(list(keys))
        return {keys[key]: _unpacked(data) for key, data in found.items()}

    def put(self, examples: Sequence[Example], segments: Mapping[int, Segment]) -> None:
        """Keep segments, until the budget is spent."""
        if not self._full:
            rows = [(self._key(e), _packed(segments[e.question_id])) for e in examples]
            self._full = not self._store.put_segments(self._identity, rows, self._budget)

    def _key(self, example: Example) -> bytes:
        content = [self._shared, example.image_sha256, example.question, example.answer]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=KEY_BYTES).digest()


def _packed(segment: Segment) -> bytes:
    """Return a line of JSON (query, answer, type and shape), then the raw numbers."""
    embeds = segment.embeds.cpu().contiguous()
    dtype = str(embeds.dtype).removeprefix("torch.")
    head = json.dumps([segment.query, segment.answer, dtype, list(embeds.shape)])
    return head.encode() + b"\n" + embeds.view(torch.uint8).numpy().tobytes()


def _unpacked(data: bytes) -> Segment:
    head, _, raw = data.partition(b"\n")
    query, answer, dtype, shape = json.loads(head)
    embeds = torch.frombuffer(bytearray(raw), dtype=getattr(torch, dtype)).view(*shape)
    return Segment(embeds, query, tuple(answer))
