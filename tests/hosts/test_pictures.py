"""An image is the same, however it is handed over; what is none is refused with advice."""

import base64
from pathlib import Path

import pytest

from lever_plus.data.images import image_sha256
from lever_plus.errors import UserError
from lever_plus.hosts.pictures import Pictures, file_url
from tiny_world import World


@pytest.fixture
def image(world: World) -> Path:
    return Path(world.splits["dev"][0].image)


def test_a_path_a_data_url_bytes_and_base64_are_the_same_image(image: Path, tmp_path: Path) -> None:
    pictures, content = Pictures(tmp_path / "kept"), image.read_bytes()
    text = base64.b64encode(content).decode()
    url, lines = f"data:image/png;base64,{text}", base64.encodebytes(content).decode()
    given = (image, str(image), url, content, text, lines, file_url(image))
    files = [pictures.path(each) for each in given]
    assert files[0] == files[1] == str(image)
    assert len(set(files[2:])) == 1
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert {image_sha256(file) for file in files} == {image_sha256(image)}


def test_a_file_whose_ending_says_nothing_is_the_same_image_elsewhere(
    image: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "picture"
    plain.write_bytes(image.read_bytes())
    url = file_url(plain)
    assert url.startswith("data:image/x-unknown;base64,")
    assert image_sha256(Pictures().path(url)) == image_sha256(image)


def test_a_temporary_folder_goes_with_its_object(image: Path) -> None:
    pictures = Pictures()
    file = Path(pictures.path(image.read_bytes()))
    assert file.is_file()
    del pictures
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "nothing is not an image: give the path of an image file, or a data URL"),
        (None, "nothing is not an image"),
        (3, "3 is not an image"),
        (
            "https://example.org/a.png",
            "https://example.org/a.png is an address",
        ),
        ("data:image/png;base64,@@", "is not the data URL of an image"),
        ("data:text/plain;base64,aGFsbG8=", "is not the data URL of an image"),
        ("nowhere.png", "image nowhere.png cannot be read"),
        ("What is in the picture?", r"image What is in the picture\? cannot be read"),
        ("iVBORw0KGgo" + "A" * 90, "is not the data URL of an image"),
        ("iVBORw0KGgo" + "A" * 89, "cannot be read: it"),
        ("/9j/" + "a" * 50, "image /9j/a+ cannot be read"),
        (b"no image at all", "cannot be read: it is none of JPEG"),
        ("data:image/png;base64,aGFsbG8=", "cannot be read: it is none of JPEG"),
    ],
)
def test_what_is_no_image_is_refused_and_not_kept(given: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        Pictures(tmp_path).path(given)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        Pictures(tmp_path / "file" / "kept").path(image.read_bytes())
