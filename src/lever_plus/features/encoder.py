"""A CLIP or SigLIP that encodes images and texts as features of unit length."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from lever_plus.data.images import open_image
from lever_plus.data.texts import shortened, why_no_text
from lever_plus.errors import UserError
from lever_plus.features.whitening import Array
from lever_plus.hub.loading import identify, load_model, load_processor
from lever_plus.hub.processing import on_device


class Kept(Protocol):
    """A place for rows as they are made, such as `Progress`, with which a killed run resumes."""

    @property
    def rows(self) -> int:
        """Number of rows that are there."""
        ...

    def add(self, rows: Array, total: int) -> None:
        """Append the next rows, [n, dimensions], of an array that will have `total` rows."""
        ...

    def finished(self) -> Array:
        """Return the whole array."""
        ...


class InMemory:
    """Rows in memory, which are lost with the process."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows = 0
        self._parts: list[Array] = []

    def add(self, rows: Array, total: int) -> None:
        """Append rows, [n, dimensions]."""
        self.rows = min(self.rows + len(rows), total)
        self._parts.append(rows)

    def finished(self) -> Array:
        """Return the whole array."""
        return np.concatenate(self._parts) if self._parts else np.zeros((0, 0), dtype=np.float32)


class ClipEncoder:
    """A CLIP or SigLIP."""

    def __init__(self, path: str, revision: str | None, device: str, batch_size: int) -> None:
        """Load the encoder; it computes in float32, whatever the type of its weights.

        Args:
            path: Hugging Face folder, hub id or "shipped:clip".
            revision: Commit, if `path` is a hub id; None for a folder.
            device: Such as "cpu" or "cuda".
            batch_size: Images or texts in one forward pass.

        Raises:
            UserError: There is no such model, or it cannot be loaded whole (see `load_model`).
        """
        from transformers import AutoModel

        _, self.identity = identify(path, revision)
        self._processor = load_processor(path, revision)
        self._model = load_model(
            AutoModel, path, revision, device, identity=self.identity, dtype=torch.float32
        )
        self._batch_size = batch_size

    def images(self, paths: Sequence[str], kept: Kept) -> Array:
        """Encode image files.

        Args:
            paths: The files.
            kept: Gets the rows; those that it has already are not encoded again.

        Returns:
            float32 [images, dimensions], rows of unit length.

        Raises:
            UserError: An image cannot be opened, or its features are not finite.
        """

        def encode(batch: Sequence[str]) -> Any:
            images = [open_image(path) for path in batch]
            inputs = self._processor.image_processor(images=images, return_tensors="pt")
            return self._model.get_image_features(**on_device(self._model, dict(inputs)))

        return self._encode(paths, encode, kept, "embed images")

    def texts(self, texts: Sequence[str], kept: Kept) -> Array:
        """Encode texts; equal texts are encoded once.

        Args:
            texts: The texts.
            kept: Gets the rows of the distinct texts; those that it has are not encoded again.

        Returns:
            float32 [texts, dimensions], rows of unit length.

        Raises:
            UserError: A text cannot be encoded, because it is empty or holds a mark (see
                `why_no_text`), or its features are not finite.
        """
        distinct = sorted(set(texts))
        for text in distinct:
            if why := why_no_text(text):
                raise UserError(
                    f"the text {shortened(text)} cannot be encoded: it {why}. Write it in other "
                    "words."
                )
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
        kept: Kept,
        description: str,
    ) -> Array:
        starts = range(kept.rows, len(items), self._batch_size)
        quiet = True if len(starts) < 2 else None
        for start in tqdm(starts, desc=description, disable=quiet):
            output = encode(items[start : start + self._batch_size])
            features = getattr(output, "pooler_output", output)
            unit = torch.nn.functional.normalize(features.float(), dim=-1)
            finite = torch.isfinite(unit).all(dim=-1)
            if not finite.all():
                first = items[start + int(finite.int().argmin())]
                raise UserError(
                    f"the encoder's features of {first!r} are not finite: use another encoder, or "
                    "restore its folder."
                )
            kept.add(unit.cpu().numpy(), len(items))
        return kept.finished()
