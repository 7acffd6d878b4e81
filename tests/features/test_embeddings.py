"""Embeddings: unit-length features, and features whitened by the training split only."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lever_plus.errors import PointerError, UserError
from lever_plus.features.embeddings import Embeddings, embed_examples, read_embeddings
from lever_plus.features.encoder import ClipEncoder, InMemory
from lever_plus.features.neighbours import nearest_ids
from lever_plus.features.progress import Progress
from lever_plus.features.whitening import FeatureSpace
from tiny_world import Folders, World


def load(folder: Path, batch: int = 8) -> ClipEncoder:
    return ClipEncoder(str(folder), None, "cpu", batch)


def test_every_example_has_unit_features(world: World, embeddings: Embeddings) -> None:
    assert set(embeddings.rows) == set(world.examples)
    for part in ("image", "question", "answer"):
        features = embeddings.unit_of(list(world.examples), part)
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_whitened_features_have_unit_variance_on_train_only(
    world: World, embeddings: Embeddings
) -> None:
    rows = [embeddings.rows[e.question_id] for e in world.splits["train"]]
    white = np.asarray(embeddings.white)[rows]
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(white.std(0, ddof=1), 1, atol=1e-3)
    everything = np.asarray(embeddings.white)
    assert not np.allclose(everything.std(0, ddof=1), 1, atol=1e-3)


def test_the_policy_sees_a_candidate_s_answer_but_not_a_query_s(
    world: World, embeddings: Embeddings
) -> None:
    train = world.splits["train"]
    ids = [e.question_id for e in train]
    shown = embeddings.candidates(embeddings.rows_of(ids))
    assert shown.shape == (len(ids), embeddings.candidate_size)
    np.testing.assert_array_equal(embeddings.queries(ids), shown[:, : embeddings.query_size])
    of_answers = shown[:, embeddings.query_size :]
    equal = np.array([[a.answer == b.answer for b in train] for a in train])
    assert 0 < equal.sum() < equal.size
    distances = np.abs(of_answers[:, None] - of_answers).max(-1)
    np.testing.assert_array_equal(distances < 1e-3, equal)


def test_features_do_not_depend_on_the_batch(
    world: World, folders: Folders, tmp_path: Path
) -> None:
    questions = [e.question for e in world.splits["train"]]
    one, many = (
        load(folders.clip, size).texts(questions, Progress(tmp_path / str(size), "question"))
        for size in (1, 24)
    )
    np.testing.assert_allclose(one, many, atol=1e-5)


@pytest.mark.invariant
def test_whitened_features_are_those_of_the_space_in_the_folder(
    embeddings: Embeddings, space: FeatureSpace
) -> None:
    """The saved space gives the same features for new examples, and has the embeddings' hash."""
    assert embeddings.space_sha256 == space.sha256
    np.testing.assert_array_equal(space.candidates(embeddings.unit), embeddings.white)
    queries = space.query(embeddings.unit)
    np.testing.assert_array_equal(queries, embeddings.white[:, : embeddings.query_size])


def test_another_variance_or_other_training_examples_make_another_space(
    world: World, folders: Folders, space: FeatureSpace, tmp_path: Path
) -> None:
    train, dev = world.splits["train"], world.splits["dev"]
    exchanged = {**world.splits, "train": train[:-1], "dev": [*dev, train[-1]]}
    hashes = {space.sha256}
    for splits, variance in ((world.splits, 0.99), (world.splits, 0.9), (exchanged, 0.99)):
        folder = tmp_path / str(len(hashes))
        embed_examples(folder, tmp_path / "cache", load(folders.clip), splits, variance)
        hashes.add(read_embeddings(folder).space_sha256)
    assert len(hashes) == 3


def test_an_unknown_example_is_named(embeddings: Embeddings) -> None:
    with pytest.raises(PointerError, match="example 99 has no embedding"):
        embeddings.queries([99])


def test_missing_folders_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro embed"):
        read_embeddings(tmp_path)
    with pytest.raises(UserError, match="holds no model"):
        load(tmp_path)


def test_embeddings_without_the_whitened_ones_say_what_to_run(
    world: World, folders: Folders, tmp_path: Path
) -> None:
    """A folder of an earlier version, with a file for every part, says so, too."""
    embed_examples(tmp_path, tmp_path / "cache", load(folders.clip), world.splits, 0.999)
    (tmp_path / "white.npy").unlink()
    with pytest.raises(UserError, match=r"lacks white\.npy: run `dvc repro embed`"):
        read_embeddings(tmp_path)


def test_a_run_that_was_stopped_goes_on_where_it_was(
    world: World, folders: Folders, embeddings: Embeddings, tmp_path: Path
) -> None:
    """Killed in the middle of the images: the batches before are not encoded again."""
    cache, calls = tmp_path / "cache", []

    class Killed(BaseException):
        pass

    def stopped(encoder: ClipEncoder, after: int | None) -> ClipEncoder:
        encode = encoder._model.get_image_features

        def counted(**inputs: object) -> object:
            calls.append(1)
            if len(calls) == after:
                raise Killed
            return encode(**inputs)

        encoder._model.get_image_features = counted
        return encoder

    with pytest.raises(Killed):
        embed_examples(tmp_path, cache, stopped(load(folders.clip), 3), world.splits, 0.999)
    calls.clear()
    embed_examples(tmp_path, cache, stopped(load(folders.clip), None), world.splits, 0.999)
    assert len(calls) == len(world.examples) // 8 - 2
    again = read_embeddings(tmp_path)
    np.testing.assert_allclose(again.unit["image"], embeddings.unit["image"], atol=1e-6)
    assert not any(cache.iterdir())


def test_an_image_that_was_changed_since_it_was_prepared_is_not_encoded(
    world: World, folders: Folders, tmp_path: Path
) -> None:
    first, second, *rest = world.splits["train"]
    splits = {**world.splits, "train": [replace(first, image=second.image), second, *rest]}
    with pytest.raises(UserError, match=f"image {second.image} was changed after"):
        embed_examples(tmp_path, tmp_path, load(folders.clip), splits, 0.999)


def test_features_that_are_not_finite_are_refused_by_name(
    clip: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.tensor([[3.0, 4.0], [torch.nan, 1.0], [0.0, 2.0]])
    monkeypatch.setattr(clip._model, "get_text_features", lambda **_: features)
    with pytest.raises(UserError, match="features of 'a dog' are not finite: use another encoder"):
        clip.texts(["a cat", "a dog", "a horse"], InMemory())


def test_neighbours_are_the_most_similar_first(world: World, embeddings: Embeddings) -> None:
    train, test = ([e.question_id for e in world.splits[s]] for s in ("train", "test"))
    found = nearest_ids(embeddings, "question", test, train, 5)
    cosines = embeddings.unit_of(test, "question") @ embeddings.unit_of(train, "question").T
    for query, row in zip(test, cosines, strict=True):
        expected = np.sort(row)[::-1][:5]
        at = [train.index(i) for i in found[query]]
        np.testing.assert_allclose(row[at], expected, atol=1e-6)


def test_a_siglip_folder_works_like_a_clip(world: World, tmp_path: Path) -> None:
    import torch
    import transformers as hf

    from vlm.model_zoo import tokenizer

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    tok = tokenizer()
    tok.model_max_length = 64
    heads = {"num_attention_heads": 4}
    config = hf.SiglipConfig(
        text_config={**tower, **heads, "vocab_size": len(tok), "projection_size": 32},
        vision_config={**tower, **heads, "image_size": 32, "patch_size": 8},
    )
    hf.SiglipModel(config).save_pretrained(tmp_path / "siglip")
    images = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    hf.SiglipProcessor(images, tok).save_pretrained(tmp_path / "siglip")
    encoder = load(tmp_path / "siglip")
    embed_examples(tmp_path / "out", tmp_path / "cache", encoder, world.splits, 0.99)
    features = read_embeddings(tmp_path / "out")
    assert features.unit["image"].shape == (len(world.examples), 32)
    np.testing.assert_allclose(np.linalg.norm(features.unit["question"], axis=1), 1, atol=1e-5)
    one, two = features.unit["question"][:2]
    assert not np.allclose(one, two, atol=1e-3)


def test_weights_kept_in_float16_are_computed_with_in_float32(
    world: World, folders: Folders, tmp_path: Path
) -> None:
    """In float16, processors without such arithmetic are slow, and the third digit differs."""
    from transformers import AutoModel

    folder = Path(shutil.copytree(folders.clip, tmp_path / "half"))
    half = AutoModel.from_pretrained(folders.clip).half()
    half.save_pretrained(folder)
    half.float().save_pretrained(tmp_path / "float")
    for path in folders.clip.iterdir():
        if not (tmp_path / "float" / path.name).exists():
            shutil.copy(path, tmp_path / "float")
    images = [example.image for example in world.splits["dev"]]
    expected = load(tmp_path / "float").images(images, InMemory())
    np.testing.assert_allclose(load(folder).images(images, InMemory()), expected, atol=1e-6)
