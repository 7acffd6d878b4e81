"""The feature space of a policy: the encoder, and the whitening of each part of its features.

CLIP features vary mostly along a few directions, but what tells two house words apart lies in the
others: without whitening, SFT learned half as much. A policy's inputs have a meaning only in the
space that it was trained in. So the space is saved with the features and with every checkpoint, is
identified by a hash of every number in it, and is applied to all new features.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lever_plus.errors import UserError
from lever_plus.files.checking import Row, checked
from lever_plus.files.json_files import parse_json
from lever_plus.files.tensors import read_tensors
from lever_plus.files.writing import replacing

PARTS: Final = ("question", "image", "answer")
"""Parts of an example, in the order of the whitened features: those of a query come first."""
QUERY_PARTS: Final = ("question", "image")
SPACE: Final = "feature_space.safetensors"
"""Name of the file of a feature space, in the folder of the features and in checkpoints."""
FORMAT: Final = "lever-plus-feature-space-1"
SMALLEST: Final = np.finfo(np.float32).eps
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Whitening:
    """Principal components, scaled to unit variance.

    Attributes:
        mean: float32 [dimensions].
        components: float32 [components, dimensions], orthonormal rows.
        scale: float32 [components], the standard deviation along each component.
    """

    mean: Array
    components: Array
    scale: Array

    def apply(self, unit: Array) -> Array:
        """Return features [n, dimensions] whitened, float32 [n, components]."""
        projected = unit @ self.components.T - self.mean @ self.components.T
        return np.asarray(projected / self.scale, dtype=np.float32)


def fit_whitening(unit: Array, variance: float) -> Whitening:
    """Fit the whitening of features.

    Args:
        unit: Features, float32 [n, dimensions].
        variance: Share of their variance that the kept components explain, in (0, 1).
    """
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=variance, whiten=True, svd_solver="full").fit(unit)
    scale = np.maximum(np.sqrt(fitted.explained_variance_), SMALLEST)
    return Whitening(fitted.mean_, fitted.components_, scale)


@dataclass(frozen=True)
class FeatureSpace:
    """The encoder and the whitening that give a policy's inputs their meaning.

    Attributes:
        encoder: Identity of the encoder (`hub.loading.identify`).
        whitening: {part: its whitening}, for each of `PARTS`.
    """

    encoder: str
    whitening: Mapping[str, Whitening]

    @cached_property
    def sha256(self) -> str:
        """Hash of the encoder's identity and of every number of the whitening."""
        digest = hashlib.sha256(self.encoder.encode())
        for name, array in sorted(self._tensors().items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def query_size(self) -> int:
        """Dimensions of a query's features."""
        return sum(len(self.whitening[part].scale) for part in QUERY_PARTS)

    @property
    def candidate_size(self) -> int:
        """Dimensions of a candidate's features: those of a query, and those of its answer."""
        return sum(len(self.whitening[part].scale) for part in PARTS)

    def query(self, unit: Mapping[str, Array]) -> Array:
        """Return what a policy sees of queries, float32 [n, query_size].

        Args:
            unit: {part: unit-length features, float32 [n, dimensions]}.
        """
        return self._joined(unit, QUERY_PARTS)

    def candidates(self, unit: Mapping[str, Array]) -> Array:
        """Return what a policy sees of candidates, float32 [n, candidate_size]; as `query`."""
        return self._joined(unit, PARTS)

    def _joined(self, unit: Mapping[str, Array], parts: tuple[str, ...]) -> Array:
        white = [self.whitening[part].apply(unit[part]) for part in parts]
        return np.concatenate(white, axis=1, dtype=np.float32)

    def _tensors(self) -> dict[str, Array]:
        return {
            f"{part}.{name}": getattr(whitening, name)
            for part, whitening in self.whitening.items()
            for name in ("mean", "components", "scale")
        }

    def save(self, path: Path) -> None:
        """Write the space as safetensors; equal spaces give equal bytes."""
        header = json.dumps({"format": FORMAT, "encoder": self.encoder}, sort_keys=True)
        # One key only: safetensors does not promise an order of several.
        tensors = {name: np.ascontiguousarray(array) for name, array in self._tensors().items()}
        with replacing(path) as fresh:
            save_file(tensors, fresh, metadata={"lever_plus": header})


class _Facts(Row):
    """The facts in the header of the file."""

    format: str
    encoder: str


def read_feature_space(path: Path) -> FeatureSpace:
    """Read a feature space.

    Raises:
        UserError: The file is missing, damaged or of another version, or holds numbers that are not
            finite, scales that are not positive, or shapes that do not fit together.
    """
    advice = "run `dvc repro embed`, or copy the whole checkpoint"
    tensors, metadata = read_tensors(path, advice, {"F32"})
    facts = checked(
        _Facts, parse_json(metadata.get("lever_plus", "{}"), str(path), advice), str(path), advice
    )
    names = {f"{part}.{name}" for part in PARTS for name in ("mean", "components", "scale")}
    if facts.format != FORMAT or tensors.keys() != names:
        raise UserError(f"{path} is not a feature space of this version: {advice}.")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    # In the memory order in which they were fitted: then products are the same to the last bit.
    whitening = {
        part: Whitening(
            arrays[f"{part}.mean"],
            np.asfortranarray(arrays[f"{part}.components"]),
            arrays[f"{part}.scale"],
        )
        for part in PARTS
    }
    for part, each in whitening.items():
        if not _fits(each):
            raise UserError(f"{path}: the parts of {part} do not fit together: {advice}.")
    return FeatureSpace(facts.encoder, whitening)


def _fits(whitening: Whitening) -> bool:
    mean, components, scale = whitening.mean, whitening.components, whitening.scale
    shapes = (mean.ndim, scale.ndim) == (1, 1) and components.shape == (len(scale), len(mean))
    return shapes and len(scale) > 0 and bool((scale > 0).all())
