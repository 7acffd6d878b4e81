"""CLIP features of every example: its image, its question and its answer.

Two forms are kept: `unit` (each part at unit length, for nearest-neighbour baselines) and `white`
(principal components of the training split at unit variance, the parts side by side, for the
policy). CLIP features differ along few directions, and what tells two house words apart lies in
the small ones: without whitening SFT learned half as much. Files are .npy arrays, read
memory-mapped.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lever_plus.data.examples import Example
from lever_plus.data.images import open_image
from lever_plus.errors import PointerError, UserError
from lever_plus.features.progress import Progress
from lever_plus.hub.loading import identify, load_model, load_processor
from lever_plus.hub.processing import on_device

PARTS: Final = ("question", "image", "answer")
"""In the order of the whitened features: what a query shows comes first."""
QUERY_PARTS: Final = ("question", "image")
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Features of examples.

    Attributes:
        rows: {example id: row of the arrays}.
        unit: {"image" | "question" | "answer": float32 [examples, dimensions]}, unit length.
        white: All parts whitened, side by side, float32 [examples, components].
        query_size: How many of the components, from the first on, show question and image.
        encoder: Hash of the CLIP folder that made them.
    """

    rows: Mapping[int, int]
    unit: Mapping[str, Array]
    white: Array
    query_size: int
    encoder: str

    def unit_of(self, example_ids: Sequence[int], part: str) -> Array:
        """Return one unit-length part of these examples, [examples, dimensions]."""
        return np.asarray(self.unit[part][self._rows(example_ids)])

    def queries(self, example_ids: Sequence[int]) -> Array:
        """Return what the policy sees of queries: question and image, side by side."""
        return np.asarray(self.white[self._rows(example_ids), : self.query_size])

    def candidates(self, rows: NDArray[np.int64]) -> Array:
        """Return what the policy sees of candidates, answer included: [examples, dimensions].

        Args:
            rows: Those of the examples in the arrays, from `rows_of`.
        """
        return np.take(self.white, rows, axis=0)

    @property
    def candidate_size(self) -> int:
        """Dimensions of a candidate's features."""
        return int(self.white.shape[1])

    def rows_of(self, example_ids: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows of examples in the arrays."""
        return np.array(self._rows(example_ids), dtype=np.int64)

    def _rows(self, example_ids: Sequence[int]) -> list[int]:
        try:
            return [self.rows[i] for i in example_ids]
        except KeyError as error:
            raise PointerError(
                f"example {error} has no embedding: run `dvc repro embed` again."
            ) from error


class ClipEncoder:
    """A CLIP or SigLIP."""

    def __init__(self, path: str, revision: str | None, device: str, batch_size: int) -> None:
        """Load the encoder.

        Args:
            path: Hugging Face folder or hub id.
            revision: Commit of a hub id; None for a folder.
            device: Such as "cpu" or "cuda".
            batch_size: Images or texts in one forward pass.

        Raises:
            UserError: There is no such model, or weights are missing in its file.
        """
        from transformers import AutoModel, AutoProcessor

        self._processor = load_processor(AutoProcessor, path, revision)
        self._model = load_model(AutoModel, path, revision, device)
        _, self.identity = identify(path, revision)
        self._batch_size = batch_size

    def images(self, paths: Sequence[str], kept: Progress) -> Array:
        """Encode image files, [images, dimensions], unit length."""

        def encode(batch: Sequence[str]) -> Any:
            images = [open_image(path) for path in batch]
            inputs = self._processor.image_processor(images=images, return_tensors="pt")
            return self._model.get_image_features(**on_device(self._model, dict(inputs)))

        return self._encode(paths, encode, kept, "embed images")

    def texts(self, texts: Sequence[str], kept: Progress) -> Array:
        """Encode texts, [texts, dimensions], unit length; equal texts are encoded once."""
        distinct = sorted(set(texts))
        padding = "max_length" if "siglip" in self._model.config.model_type else True

        def encode(batch: Sequence[str]) -> Any:
            inputs = self._processor.tokenizer(
                list(batch), padding=padding, truncation=True, return_tensors="pt"
            )
            inputs.pop("token_type_ids", None)
            return self._model.get_text_features(**on_device(self._model, dict(inputs)))

        rows = {text: row for row, text in enumerate(distinct)}
        return self._encode(distinct, encode, kept, "embed texts")[[rows[text] for text in texts]]

    @torch.inference_mode()
    def _encode(
        self,
        items: Sequence[str],
        encode: Callable[[Sequence[str]], Any],
        kept: Progress,
        description: str,
    ) -> Array:
        starts = range(kept.rows, len(items), self._batch_size)
        for start in tqdm(starts, desc=description, disable=None):
            output = encode(items[start : start + self._batch_size])
            features = getattr(output, "pooler_output", output)
            unit = torch.nn.functional.normalize(features.float(), dim=-1)
            kept.add(unit.cpu().numpy(), len(items))
        return kept.finished()


def embed_examples(
    folder: Path,
    cache: Path,
    encoder: ClipEncoder,
    splits: Mapping[str, Sequence[Example]],
    variance: float,
) -> None:
    """Encode all examples and write both forms of their features.

    Args:
        folder: Gets `<part>.npy`, `white.npy` and `meta.json`.
        cache: Keeps what is encoded so far, by encoder and data: a run that was stopped goes on.
        encoder: The CLIP; policies refuse features of another one.
        splits: Examples by split; components and scale come from "train" alone.
        variance: Share of the variance that the kept components explain, in (0, 1).
    """
    from sklearn.decomposition import PCA

    folder.mkdir(parents=True, exist_ok=True)
    examples = [example for split in splits.values() for example in split]
    data = data_hash(examples)
    parts = {part: Progress(cache / f"{encoder.identity[:16]}-{data[:16]}", part) for part in PARTS}
    features = {
        "image": encoder.images([e.image for e in examples], parts["image"]),
        "question": encoder.texts([e.question for e in examples], parts["question"]),
        "answer": encoder.texts([e.answer for e in examples], parts["answer"]),
    }
    train = {e.question_id for e in splits["train"]}
    fitted_on = [row for row, e in enumerate(examples) if e.question_id in train]
    whitening = {
        part: PCA(n_components=variance, whiten=True, svd_solver="full").fit(unit[fitted_on])
        for part, unit in features.items()
    }
    sizes = [int(whitening[part].n_components_) for part in PARTS]
    shape = (len(examples), sum(sizes))
    white = np.lib.format.open_memmap(folder / "white.npy", "w+", np.float32, shape)
    for part, end, size in zip(PARTS, accumulate(sizes), sizes, strict=True):
        np.save(folder / f"{part}.npy", features[part])
        white[:, end - size : end] = whitening[part].transform(features[part])
    white.flush()
    meta = {
        "encoder": encoder.identity,
        "data": data,
        "ids": [e.question_id for e in examples],
        "query_size": sum(sizes[: len(QUERY_PARTS)]),
    }
    (folder / "meta.json").write_text(json.dumps(meta, sort_keys=True) + "\n", encoding="utf-8")
    for progress in parts.values():
        progress.remove()


def data_hash(examples: Sequence[Example]) -> str:
    """Return a sha256 of everything that is encoded, in order."""
    digest = hashlib.sha256()
    for example in examples:
        row = (example.question_id, example.image_sha256, example.question, example.answer)
        digest.update(repr(row).encode())
    return digest.hexdigest()


def read_embeddings(folder: Path) -> Embeddings:
    """Read what `embed_examples` wrote, memory-mapped; UserError if it is not there."""
    files = ["meta.json", "white.npy", *(f"{part}.npy" for part in PARTS)]
    lacking = [name for name in files if not (folder / name).is_file()]
    if lacking:
        raise UserError(f"{folder} lacks {', '.join(lacking)}: run `dvc repro embed`.")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return Embeddings(
        rows={example_id: row for row, example_id in enumerate(meta["ids"])},
        unit={part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in PARTS},
        white=np.load(folder / "white.npy", mmap_mode="r"),
        query_size=meta["query_size"],
        encoder=meta["encoder"],
    )
