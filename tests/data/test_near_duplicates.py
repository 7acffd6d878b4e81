"""An image that was saved twice is found, whatever its ids and formats are."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lever_plus.data.examples import Example
from lever_plus.data.near_duplicates import near_duplicates
from lever_plus.errors import UserError


def picture(path: Path, shapes: list[tuple[int, int, int, int]]) -> Example:
    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        draw.ellipse(shape, fill="black")
    image.save(path)
    number = len(list(path.parent.iterdir()))
    return Example(str(path), "q?", "a", ("a",) * 10, question_id=number, image_id=number)


def test_a_picture_saved_again_in_another_split_is_reported(tmp_path: Path) -> None:
    circles, others = [(5, 5, 50, 40), (60, 60, 90, 95)], [(40, 0, 95, 30), (0, 70, 20, 95)]
    train = [picture(tmp_path / "a.png", circles), picture(tmp_path / "b.png", others)]
    test = [picture(tmp_path / "c.jpg", circles)]  # the same picture, compressed
    (pair,) = near_duplicates({"train": train, "test": test}, bits=4)
    assert (Path(pair.first).name, Path(pair.second).name) == ("a.png", "c.jpg")
    assert pair.bits <= 4


def test_pictures_of_one_split_are_not_compared(tmp_path: Path) -> None:
    circles = [(5, 5, 50, 40)]
    train = [picture(tmp_path / "a.png", circles), picture(tmp_path / "b.png", circles)]
    assert near_duplicates({"train": train, "dev": [], "test": []}, bits=4) == []


def test_more_pairs_than_anybody_looks_through_are_a_sentence_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a single colour are all alike."""
    train, test = ([picture(tmp_path / f"{s}{i}.png", []) for i in range(4)] for s in "ab")
    monkeypatch.setattr("lever_plus.data.near_duplicates.LARGEST_FOUND", 16)
    assert len(near_duplicates({"train": train, "test": test}, bits=0)) == 16
    monkeypatch.setattr("lever_plus.data.near_duplicates.LARGEST_FOUND", 15)
    with pytest.raises(
        UserError, match=r"more than 15 pairs .* at most 0 bits .*near_duplicate_bits.*a0"
    ):
        near_duplicates({"train": train, "test": test}, bits=0)
