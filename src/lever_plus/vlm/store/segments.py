"""Image features and token embeddings that outlive a process: computed once an image, not a stage.

A segment is kept beside the answers, under the VLM's identity and its own image, question and
answer. Large models make megabytes an image, so what is kept has a budget; the rest is computed
again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from lever_plus.data.examples import hashed_query
from lever_plus.vlm.engine.segments import Item, Segment
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

    def get(self, items: Sequence[Item]) -> dict[Item, Segment]:
        """Return those of these segments that are kept."""
        keys = {self._key(item): item for item in items}
        found = self._store.segments(list(keys))
        return {keys[key]: _unpacked(data) for key, data in found.items()}

    def put(self, segments: Mapping[Item, Segment]) -> None:
        """Keep segments, until the budget is spent."""
        if not self._full:
            rows = [(self._key(item), _packed(segment)) for item, segment in segments.items()]
            self._full = not self._store.put_segments(self._identity, rows, self._budget)

    def _key(self, item: Item) -> bytes:
        query = hashed_query(item.query)
        content = [self._shared, query.image_sha256, query.question, item.answer]
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
