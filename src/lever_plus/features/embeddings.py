"""Features of all examples of an experiment, in files: encoded once, then read memory-mapped.

They are kept in two forms: `unit`, each part at unit length, for the nearest-neighbour baselines;
and `white`, the whitened parts side by side, for the policy.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lever_plus.data.examples import Example, check_images
from lever_plus.errors import PointerError, UserError
from lever_plus.features.arrays import check_array, check_unit
from lever_plus.features.encoder import ClipEncoder
from lever_plus.features.progress import Progress
from lever_plus.features.whitening import (
    PARTS,
    SPACE,
    Array,
    FeatureSpace,
    fit_whitening,
    read_feature_space,
)
from lever_plus.files.checking import Row
from lever_plus.files.json_files import read_json_as
from lever_plus.files.writing import replacing, write_json

META: Final = "meta.json"
WHITE: Final = "white.npy"
ADVICE: Final = "run `dvc repro embed`"
SAMPLED: Final = 64
"""Rows that are checked to be in the feature space that is in the same folder."""


class Meta(Row):
    """The content of meta.json.

    Attributes:
        data: Hash of what was encoded, see `data_hash`.
        ids: The example id of each row.
    """

    data: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Embeddings:
    """Features of examples, by id.

    Attributes:
        rows: {example id: row of the arrays}.
        unit: {"image" | "question" | "answer": float32 [examples, dimensions]}, unit length.
        white: All parts whitened and side by side, float32 [examples, candidate_size].
        query_size: Number of columns of `white`, from the first on, that show question and image.
        space_sha256: Hash of the feature space of `white`.
    """

    rows: Mapping[int, int]
    unit: Mapping[str, Array]
    white: Array
    query_size: int
    space_sha256: str

    def unit_of(self, example_ids: Sequence[int], part: str) -> Array:
        """Return one part of examples at unit length, float32 [examples, dimensions].

        Raises:
            PointerError: An example has no features.
        """
        return np.asarray(self.unit[part][self._rows(example_ids)])

    def queries(self, example_ids: Sequence[int]) -> Array:
        """Return what the policy sees of queries, question and image, [queries, query_size]."""
        return np.asarray(self.white[self._rows(example_ids), : self.query_size])

    def candidates(self, rows: NDArray[np.int64]) -> Array:
        """Return what the policy sees of candidates, answer included, [rows, candidate_size].

        Args:
            rows: Rows of the examples, from `rows_of`.
        """
        return np.take(self.white, rows, axis=0)

    @property
    def candidate_size(self) -> int:
        """Dimensions of a candidate's features."""
        return int(self.white.shape[1])

    def rows_of(self, example_ids: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows of examples in the arrays, int64 [examples]; errors as `unit_of`."""
        return np.array(self._rows(example_ids), dtype=np.int64)

    def _rows(self, example_ids: Sequence[int]) -> list[int]:
        try:
            return [self.rows[i] for i in example_ids]
        except KeyError as error:
            raise PointerError(
                f"example {error} has no embedding: run `dvc repro embed` again."
            ) from error


def embed_examples(
    folder: Path,
    cache: Path,
    encoder: ClipEncoder,
    splits: Mapping[str, Sequence[Example]],
    variance: float,
) -> None:
    """Encode all examples and write both forms of their features.

    Args:
        folder: Gets `<part>.npy`, `white.npy`, the feature space and `meta.json`.
        cache: Folder that keeps what is encoded so far, by encoder and data, so that a run that was
            stopped resumes.
        encoder: The encoder; policies refuse features of another one.
        splits: Examples by split; the whitening is fitted on "train" only.
        variance: Share of the variance that the kept components explain, in (0, 1).

    Raises:
        UserError: An image was changed or cannot be opened, a text cannot be encoded, or a file
            cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = [example for split in splits.values() for example in split]
    data = data_hash(examples)
    parts = {part: Progress(cache / f"{encoder.identity[:16]}-{data[:16]}", part) for part in PARTS}
    check_images(examples)
    features = {
        "image": encoder.images([e.image for e in examples], parts["image"]),
        "question": encoder.texts([e.question for e in examples], parts["question"]),
        "answer": encoder.texts([e.answer for e in examples], parts["answer"]),
    }
    train = {e.question_id for e in splits["train"]}
    fitted_on = [row for row, e in enumerate(examples) if e.question_id in train]
    whitening = {part: fit_whitening(features[part][fitted_on], variance) for part in PARTS}
    space = FeatureSpace(encoder.identity, whitening)
    (folder / META).unlink(missing_ok=True)  # the folder cannot be read until all of it is there
    space.save(folder / SPACE)
    shape = (len(examples), space.candidate_size)
    sizes = [len(whitening[part].scale) for part in PARTS]
    with replacing(folder / WHITE) as fresh:
        white = np.lib.format.open_memmap(fresh, "w+", np.float32, shape)
        for part, end, size in zip(PARTS, accumulate(sizes), sizes, strict=True):
            white[:, end - size : end] = whitening[part].apply(features[part])
        white.flush()
    for part in PARTS:
        with replacing(folder / f"{part}.npy") as fresh:
            np.save(fresh, features[part])
    meta = {"data": data, "ids": [e.question_id for e in examples]}
    write_json(folder / META, meta, indent=None)
    for progress in parts.values():
        progress.remove()


def data_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 (hex) of all that is encoded, and of the examples' ids, in order."""
    digest = hashlib.sha256()
    for example in examples:
        row = (example.question_id, example.image_sha256, example.question, example.answer)
        digest.update(repr(row).encode())
    return digest.hexdigest()


def read_embeddings(folder: Path, examples: Mapping[int, Example] | None = None) -> Embeddings:
    """Read what `embed_examples` wrote, memory-mapped.

    Args:
        folder: The folder that it wrote.
        examples: The examples, by id, that the features must be of; None: any.

    Raises:
        UserError: A file is missing, is damaged, holds numbers that are not finite, or does not
            belong to the others: another number of rows, or another feature space; or the features
            are of other examples.
    """
    files = [META, WHITE, SPACE, *(f"{part}.npy" for part in PARTS)]
    lacking = [name for name in files if not (folder / name).is_file()]
    if lacking:
        raise UserError(f"{folder} lacks {', '.join(lacking)}: {ADVICE}.")
    meta = read_json_as(Meta, folder / META, ADVICE)
    ids = meta.ids
    rows = {example_id: row for row, example_id in enumerate(ids)}
    if len(rows) != len(ids):
        raise UserError(f"{folder / META} has an example's id twice: {ADVICE}.")
    if examples is not None:
        known = [examples[i] for i in ids if i in examples]
        if len(known) != len(ids) or data_hash(known) != meta.data:
            raise UserError(f"{folder} holds the features of other examples: {ADVICE}.")
    space = read_feature_space(folder / SPACE)
    unit = {}
    for part in PARTS:
        width = len(space.whitening[part].mean)
        unit[part] = check_array(folder / f"{part}.npy", (len(ids), width), ADVICE)
        check_unit(unit[part], folder / f"{part}.npy", ADVICE)
    white = check_array(folder / WHITE, (len(ids), space.candidate_size), ADVICE)
    _check_space(unit, white, space, folder)
    return Embeddings(rows, unit, white, space.query_size, space.sha256)


def _check_space(
    unit: Mapping[str, Array], white: Array, space: FeatureSpace, folder: Path
) -> None:
    """Refuse whitened features that were not made with the feature space in their folder."""
    some = np.unique(np.linspace(0, max(0, len(white) - 1), SAMPLED, dtype=np.int64))
    if not len(white):
        return
    made = space.candidates({part: unit[part][some] for part in PARTS})
    scale = np.concatenate([space.whitening[part].scale for part in PARTS])
    # Products of another shape differ in the last digits; dividing by a small scale enlarges that.
    if not (np.abs(made - white[some]) <= 1e-3 + 1e-3 * np.abs(made) + 1e-5 / scale).all():
        raise UserError(f"{folder / WHITE} was made in another space than {SPACE}: {ADVICE}.")
