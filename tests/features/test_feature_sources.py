"""Features of new examples equal those of the experiment's files; nothing is encoded twice."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest

from lever_plus.data.examples import Example, Query
from lever_plus.errors import PointerError, UserError
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.encoder import ClipEncoder, Kept
from lever_plus.features.kept import KeptFeatures
from lever_plus.features.sources import EncodedFeatures, StoredFeatures
from lever_plus.features.whitening import PARTS, Array, FeatureSpace
from tiny_world import World


class Counted:
    """An encoder that records what it encodes."""

    def __init__(self, clip: ClipEncoder) -> None:
        """Start with nothing encoded."""
        self._clip, self.identity = clip, clip.identity
        self.encoded: list[str] = []

    def images(self, paths: Sequence[str], kept: Kept) -> Array:
        self.encoded += paths
        return self._clip.images(paths, kept)

    def texts(self, texts: Sequence[str], kept: Kept) -> Array:
        self.encoded += texts
        return self._clip.texts(texts, kept)


@pytest.fixture
def counted(clip: ClipEncoder) -> Counted:
    return Counted(clip)


@pytest.fixture
def stored(embeddings: Embeddings, world: World) -> StoredFeatures:
    return StoredFeatures(embeddings, world.examples)


@pytest.fixture
def encoded(space: FeatureSpace, counted: Counted) -> EncodedFeatures:
    return EncodedFeatures(space, counted, None)


def everything(features: StoredFeatures | EncodedFeatures, examples: list[Example]) -> list[Array]:
    """Return all features of examples, as candidates and as queries."""
    queries = [example.query for example in examples]
    asked = [features.unit_queries(queries, part) for part in ("question", "image")]
    shown = [features.unit_candidates(examples, part) for part in PARTS]
    return [features.queries(queries), features.candidates(examples), *asked, *shown]


@pytest.mark.invariant
def test_encoded_features_equal_the_stored_ones(
    world: World, stored: StoredFeatures, encoded: EncodedFeatures
) -> None:
    """In another order and with a repeat, for which the encoder's batches differ."""
    every = list(world.examples.values())
    examples = [*every[::-3], every[0], every[0]]
    pairs = zip(everything(stored, examples), everything(encoded, examples), strict=True)
    for one, other in pairs:
        assert other.dtype == np.float32
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
    assert encoded.space_sha256 == stored.space_sha256


def test_features_go_by_content_whatever_the_ids_and_the_names_of_files(
    world: World, encoded: EncodedFeatures, tmp_path: Path
) -> None:
    example = world.splits["dev"][0]
    copied = copyfile(example.image, tmp_path / "photo.png")
    renamed = Example(str(copied), example.question, example.answer)
    np.testing.assert_array_equal(encoded.candidates([renamed]), encoded.candidates([example]))
    assert world.splits["dev"][1].image_sha256 != example.image_sha256
    other = replace(renamed, image=world.splits["dev"][1].image)
    assert not np.allclose(encoded.candidates([other]), encoded.candidates([example]), atol=1e-3)


@pytest.mark.invariant
def test_nothing_is_encoded_twice(
    world: World, encoded: EncodedFeatures, counted: Counted, tmp_path: Path
) -> None:
    """Neither a text that several examples share, nor an image in two files."""
    examples = world.splits["train"]
    first = everything(encoded, examples)
    texts = {text for e in examples for text in (e.question, e.answer)}
    images = {e.image_sha256: e.image for e in examples}
    assert sorted(counted.encoded) == sorted([*texts, *images.values()])
    done = len(counted.encoded)
    copied = str(copyfile(examples[0].image, tmp_path / "copy.png"))
    encoded.queries([Query(copied, examples[1].question)])
    for one, again in zip(first, everything(encoded, examples), strict=True):
        np.testing.assert_array_equal(one, again)
    assert len(counted.encoded) == done
    new = next(e for e in world.splits["dev"] if e.image_sha256 not in images)
    encoded.queries([new.query])
    assert counted.encoded[done:] == [*({new.question} - texts), new.image]


def test_an_image_that_is_overwritten_gets_the_features_of_what_it_is_now(
    world: World, encoded: EncodedFeatures, tmp_path: Path
) -> None:
    one, other = world.splits["dev"][:2]
    assert one.image_sha256 != other.image_sha256
    photo = Path(copyfile(one.image, tmp_path / "photo.png"))
    asked, shown = Query(str(photo), one.question), Example(str(photo), one.question, one.answer)
    before = encoded.queries([asked]), encoded.candidates([shown])
    copyfile(other.image, photo)
    after = encoded.queries([asked]), encoded.candidates([shown])
    expected = Query(other.image, one.question), Example(other.image, one.question, one.answer)
    np.testing.assert_array_equal(after[0], encoded.queries([expected[0]]))
    np.testing.assert_array_equal(after[1], encoded.candidates([expected[1]]))
    for old, new in zip(before, after, strict=True):
        assert not np.allclose(old, new, atol=1e-3)


def test_another_encoder_is_refused(space: FeatureSpace, counted: Counted) -> None:
    counted.identity = "0123456789ab" + "c" * 52
    with pytest.raises(
        UserError, match=f"belongs to encoder {space.encoder[:12]}, but .* is 0123456789ab: use the"
    ):
        EncodedFeatures(space, counted, None)


def test_a_query_that_is_not_of_the_experiment_is_named(stored: StoredFeatures) -> None:
    unknown = Query("photo.png", "What is new?", "d" * 64)
    for ask in (lambda: stored.queries([unknown]), lambda: stored.unit_queries([unknown], "image")):
        with pytest.raises(
            PointerError, match=r"'What is new\?' \(photo.png\) is not a query of this"
        ):
            ask()


def test_a_new_example_does_not_get_the_features_of_one_with_its_id(
    world: World, stored: StoredFeatures
) -> None:
    known = world.splits["train"][0]
    others = [replace(known, answer="new"), replace(known, question_id=99)]
    asks: Iterable[Callable[[list[Example]], Array]] = (
        stored.candidates,
        lambda examples: stored.unit_candidates(examples, "answer"),
    )
    for ask in asks:
        ask([known])
        for other in others:
            with pytest.raises(PointerError, match="is not an example of this experiment"):
                ask([known, other])


@pytest.mark.invariant
def test_a_second_process_encodes_nothing(
    world: World, space: FeatureSpace, clip: ClipEncoder, tmp_path: Path
) -> None:
    """It shares nothing with the first but the folder."""
    examples = list(world.examples.values())
    found, encoders = [], []
    for _ in range(2):
        encoders.append(Counted(clip))
        kept = KeptFeatures(tmp_path / "kept", clip.identity)
        found.append(everything(EncodedFeatures(space, encoders[-1], kept), examples))
    assert encoders[0].encoded
    assert encoders[1].encoded == []
    for one, again in zip(*found, strict=True):
        np.testing.assert_array_equal(one, again)
