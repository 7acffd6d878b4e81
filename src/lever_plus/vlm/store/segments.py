"""Image features and token embeddings in the store: computed once per image, not once per stage.

A segment is kept in the same file as the answers; its key covers the VLM's identity and the
segment's image, question and answer. Features of large models take megabytes per image, so the
stored ones have a size limit; beyond it they are computed again.
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
"""Version of a stored segment; part of its key. Version 1 had only embeddings."""
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
        """Keep at most `megabytes` of segments in the store, including those of other VLMs."""
        self._store, self._identity = store, identity
        self._budget, self._full = megabytes * MEGABYTE, megabytes == 0
        shared = {k: v for k, v in identity.items() if k != "generation"}
        self._shared = json.dumps(shared, sort_keys=True)

    def get(self, items: Sequence[Item]) -> dict[Item, Segment]:
        """Return those of the segments that are stored."""
        keys = {self._key(item): item for item in items}
        found = self._store.segments(list(keys))
        kept = {keys[key]: _unpacked(data) for key, data in found.items()}
        return {item: segment for item, segment in kept.items() if segment is not None}

    def put(self, segments: Mapping[Item, Segment]) -> None:
        """Store segments until the size limit is reached."""
        if not self._full:
            rows = [(self._key(item), _packed(segment)) for item, segment in segments.items()]
            self._full = not self._store.put_segments(self._identity, rows, self._budget)

    def _key(self, item: Item) -> bytes:
        query = hashed_query(item.query)
        made_of = (query.image_sha256, query.question, item.answer, item.follows, item.shown)
        content = json.dumps([FORMAT, self._shared, *made_of])
        return hashlib.blake2b(content.encode(), digest_size=KEY_BYTES).digest()


def _packed(segment: Segment) -> bytes:
    """Return one line of JSON (ids; name, type and shape of each tensor), then the raw numbers."""
    tensors = {k: v.cpu().contiguous() for k, v in segment.features.tensors().items()}
    shapes = {k: [_name(v.dtype), *v.shape] for k, v in tensors.items()}
    head = json.dumps([segment.query, segment.answer, segment.features.packed, shapes])
    raw = (v.reshape(-1).view(torch.uint8).numpy().tobytes() for v in tensors.values())
    return b"\n".join((head.encode(), b"".join(raw)))


def _unpacked(data: object) -> Segment | None:
    """Return a stored segment; None if it is damaged: then it is computed again."""
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
