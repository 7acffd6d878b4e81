"""Templates of image names: one field with a width at most, inside the folder of the images."""

import pytest

from lever_plus.errors import UserError
from lever_plus.files.names import check_image_name


@pytest.mark.parametrize(
    "template",
    [
        "{image_id}",
        "{image_id:012d}.jpg",
        "{image_id:d}.png",
        "{image_id}/frame.jpg",
        "{{{image_id}",
    ],
)
def test_names_of_images(template: str) -> None:
    assert check_image_name(template, "--image-name") == template


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("a.jpg", "must hold"),
        ("{{image_id}}.jpg", "must hold"),
        ("{}.jpg", "no other field"),
        ("{0}.jpg", "no other field"),
        ("{image_id}{split}.jpg", "no other field"),
        ("{image_id.__class__}", "no other field"),
        ("{image_id[0]}", "no other field"),
        ("{image_id!r}", "no other field"),
        ("{image_id:1000000000d}", "no other field"),
        ("{image_id:{image_id}}", "no other field"),
        ("{image_id:s}", "no other field"),
        ("{image_id:.3f}", "no other field"),
        ("{image_id", "write {{ and }} for braces"),
        ("}{image_id}", "write {{ and }} for braces"),
        ("../{image_id}.jpg", "inside the folder"),
        ("/tmp/{image_id}.jpg", "inside the folder"),
        ("a//{image_id}.jpg", "inside the folder"),
        ("{image_id}/", "inside the folder"),
        ("..\\{image_id}", "inside the folder"),
        ("{image_id}\0.jpg", "can't be printed"),
    ],
)
def test_what_is_none(template: str, why: str) -> None:
    with pytest.raises(UserError, match=f"--image-name .*{why}"):
        check_image_name(template, "--image-name")
