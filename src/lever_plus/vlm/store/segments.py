"""Image features and token embeddings that outlive a process: computed once an image, not a stage.

A segment is kept beside the answers, under the VLM's identity and its own image, question and
answer. Large models make megabytes an image, so what is kept has a budget; the rest is computed
again.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from lever_plus.data.examples import hashed_query
from lever_plus.errors import UserError
from lever_plus.files.json_files import parse_json
from lever_plus.vlm.engine.features import features_of
from lever_plus.vlm.engine.segments import Item
from lever_plus.vlm.engine.table import Segment
from lever_plus.vlm.request import VlmIdentity
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.schema import KEY_BYTES

MEGABYTE: Final = 2**20
FORMAT: Final = 2
"""Of a segment in the store; part of its key, so that no other is read. 1 had embeddings alone."""
DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}


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
        kept = {keys[key]: _unpacked(data) for key, data in found.items()}
        return {item: segment for item, segment in kept.items() if segment is not None}

    def put(self, segments: Mapping[Item, Segment]) -> None:
        """Keep segments, until the budget is spent."""
        if not self._full:
            rows = [(self._key(item), _packed(segment)) for item, segment in segments.items()]
            self._full = not self._store.put_segments(self._identity, rows, self._budget)

    def _key(self, item: Item) -> bytes:
        query = hashed_query(item.query)
        content = [self._shared, query.image_sha256, query.question, item.answer, item.follows]
        return hashlib.blake2b(
            json.dumps([FORMAT, *content]).encode(), digest_size=KEY_BYTES
        ).digest()


def _packed(segment: Segment) -> bytes:
    """Return a line of JSON (ids; every tensor's name, type and shape), then the raw numbers."""
    tensors = {k: v.cpu().contiguous() for k, v in segment.features.tensors().items()}
    shapes = {k: [_name(v.dtype), *v.shape] for k, v in tensors.items()}
    head = json.dumps([segment.query, segment.answer, segment.features.packed, shapes])
    raw = (v.reshape(-1).view(torch.uint8).numpy().tobytes() for v in tensors.values())
    return b"\n".join((head.encode(), b"".join(raw)))


def _unpacked(data: object) -> Segment | None:
    """Return a kept segment; None if it is not as `_packed` leaves one: it is computed again."""
    if not isinstance(data, bytes):
        return None
    try:
        head, _, raw = data.partition(b"\n")
        query, answer, packed, shapes = parse_json(head, "a segment", "it is computed again")
        tensors, rest = {}, memoryview(bytearray(raw))
        for name, (dtype, *shape) in shapes.items():
            size = DTYPES[dtype].itemsize * math.prod(shape)
            tensors[name] = torch.frombuffer(rest[:size], dtype=DTYPES[dtype]).view(*shape)
            rest = rest[size:]
        features = features_of(tensors, packed)
        length = len(features.embeds)
        ids = (query, *answer)
        whole = all(type(number) is int and number >= 0 for number in ids) and query <= length
        whole = whole and not rest and all(len(value) == length for value in tensors.values())
        whole = whole and all(value.isfinite().all() for value in tensors.values())
        return Segment(features, query, tuple(answer)) if whole else None
    except (UserError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
