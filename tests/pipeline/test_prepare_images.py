"""Prepare on a user's files: images are identified by their content, and each of them opens."""

import json
from pathlib import Path

import pytest

from lever_plus.config.data import HeldOut, VqaFilesSource, VqaSplit
from lever_plus.config.params import Params
from lever_plus.data.examples import Example, read_splits
from lever_plus.errors import UserError
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.prepare import Settings, run
from pictures import draw

QUESTIONS = {"train": 22, "test": 6}


def write_files(root: Path) -> None:
    """Write questions, two per image; every split numbers its images from 0."""
    for number, (split, size) in enumerate(QUESTIONS.items()):
        questions, annotations = [], []
        for index in range(size):
            ids = {"question_id": 1000 * number + index, "image_id": index // 2}
            draw(root / split / f"{index // 2}" / "frame.png", gray=100 * number + index // 2)
            questions.append({**ids, "question": f"q{index}?"})
            annotations.append({**ids, "answers": [{"answer": "yes"}] * 10})
        (root / f"q_{split}.json").write_text(json.dumps({"questions": questions}))
        (root / f"a_{split}.json").write_text(json.dumps({"annotations": annotations}))


def prepare(folder: Path, params: Params) -> dict[str, list[Example]]:
    test, train = (
        VqaSplit(
            questions=f"q_{split}.json",
            annotations=f"a_{split}.json",
            images=split,
            image_name="{image_id}/frame.png",
            sample=None,
        )
        for split in ("test", "train")
    )
    source = VqaFilesSource(
        kind="vqa_files",
        root="data",
        answers_per_question=10,
        allow_fallback=False,
        train=train,
        dev=HeldOut(held_out=4),
        test=test,
    )
    paths = Paths(folder)
    settings = Settings(
        seed=0,
        source=source,
        rl_queries=4,
        near_duplicate_bits=None,
        vlm=params.vlm,
        pool_size=4,
        instructions=[],
    )
    run(settings, paths)
    return read_splits(paths.prepare, folder)


def test_images_that_every_split_counts_anew_take_nothing_from_training(
    tmp_path: Path, params: Params
) -> None:
    write_files(tmp_path / "data")
    splits = prepare(tmp_path, params)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 18,
        "dev": 4,
        "test": 6,
    }
    images = {e.image_id: e.image_sha256 for rows in splits.values() for e in rows}
    assert len(images) == len(set(images.values())) == 14
    assert {e.image_id for e in splits["test"]} == {0, 1, 2}


def test_an_image_of_test_under_another_number_leaves_training(
    tmp_path: Path, params: Params
) -> None:
    write_files(tmp_path / "data")
    draw(tmp_path / "data" / "train" / "7" / "frame.png", gray=101)  # the test split's second
    splits = prepare(tmp_path, params)
    left = {e.question_id for split in ("train", "dev") for e in splits[split]}
    assert left == set(range(22)) - {14, 15}


@pytest.mark.parametrize("keep", [0, 50])
def test_an_image_that_does_not_open_stops_the_stage(
    tmp_path: Path, params: Params, keep: int
) -> None:
    write_files(tmp_path / "data")
    path = tmp_path / "data" / "test" / "1" / "frame.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"question 1002: image .*test/1/frame\.png cannot be read"):
        prepare(tmp_path, params)
