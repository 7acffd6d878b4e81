"""Damaged image files and bad templates of their names: a sentence, or exactly the right pixels."""

import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
from doors import Bad, try_all
from numpy.typing import NDArray
from PIL import Image
from texts import VALUES, damaged

from lever_plus.data.images import FORMATS, image_sha256, image_url, open_image, opened_sha256
from lever_plus.data.pool_files import read_pool
from lever_plus.data.vqa_files import read_vqa_files
from lever_plus.files.names import check_image_name

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
EACH = 60
"""Damaged files of every format."""


def picture() -> Image.Image:
    """A picture with few enough colours for a palette, which still takes some bytes."""
    noise = np.random.default_rng(0).integers(0, 4, (24, 32, 1)) * np.array([80, 40, 20])
    return Image.fromarray(noise.astype(np.uint8))


def files() -> Iterator[tuple[str, bytes]]:
    """Yield files of every format, with everything that says how a picture is shown."""
    exif = Image.Exif()
    exif[0x0112] = 1
    for kind in FORMATS:
        stream = io.BytesIO()
        options = {"WEBP": {"lossless": True, "exif": exif}, "JPEG": {"exif": exif}}.get(kind, {})
        picture().save(stream, kind, **options)
        yield kind, stream.getvalue()


def _opened(path: Path) -> NDArray[np.uint8]:
    """Open an image through all doors, which must agree."""
    image = open_image(str(path))
    assert (image.mode, image.info, len(opened_sha256(path))) == ("RGB", {}, 64)
    assert image_url(path).startswith("data:image/")
    again = np.asarray(open_image(path))
    np.testing.assert_array_equal(np.asarray(image), again)
    return again


def _file(name: str, path: Path, content: bytes, whole: NDArray[np.uint8] | None) -> Bad:
    def run() -> None:
        path.write_bytes(content)
        found = _opened(path)
        if whole is not None:  # what is cut off is refused, or was behind the pixels
            np.testing.assert_array_equal(found, whole)

    return Bad(name, run, (path.name,))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_images(tmp_path: Path) -> None:
    rng = random.Random(4)
    path = tmp_path / "a b\u00e4'%s.img"

    def inputs() -> Iterator[Bad]:
        for kind, content in files():
            path.write_bytes(content)
            whole = _opened(path)
            for what, made in damaged(content, rng, EACH):
                sure = what.startswith("cut off") or kind == "PNG"  # it has checksums
                yield _file(f"{kind} {what}", path, made, whole if sure else None)
            for end in range(0, len(content), max(1, len(content) // 20)):
                yield _file(f"{kind}, {end} bytes", path, content[:end], whole)

    counts = try_all("image files", inputs(), tmp_path / "none")
    assert counts["refused"] > counts["tried"] / 3


def test_no_files(tmp_path: Path) -> None:
    """What is no file, or no image, is refused by its name at once."""
    for name in ("folder.png", "many.png"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "null.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    names = [path.name for path in tmp_path.iterdir()]
    names += ["none.png", "a\0.png", "\udcff.png", "x" * 300, "a\nb.png", "many.png/a.png"]
    contents = [b"", b"\0" * 100, b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>", b"GIF89a"]
    contents += [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        b"P6\n0 0 255\n",
    ]
    contents += [random.Random(n).randbytes(200) for n in range(30)]
    contents += [json.dumps(value).encode() for value in VALUES]
    contents += [
        start + random.Random(n).randbytes(80) for n in range(5) for start in contents[5:11]
    ]

    def inputs() -> Iterator[Bad]:
        for name in names:
            path = tmp_path / name
            yield Bad(repr(name[:20]), lambda path=path: _refused(path), (name[:20],))
        for number, content in enumerate(contents):
            yield _file(f"bytes {number}", tmp_path / "a.png", content, np.zeros(0, np.uint8))

    assert not try_all("no images", inputs())["fine"]


def _refused(path: Path) -> None:
    open_image(path)
    raise AssertionError(f"{path} was opened")


PIECES = (
    *("{image_id}", "{image_id:012d}", "{image_id:3}", "a", ".jpg", "/", "..", ".", "COCO_", "{{"),
    *("}}", "{", "}", "{0}", "{}", "{image_id!r}", "{image_id.real}", "{image_id:>9}", "\\", "\0"),
    *("{image_id:999999999d}", "{image_id:{image_id}}", "{name}", "~", "\n", "\u00e4", "//", "%s"),
)


def _template(template: str, folder: Path) -> Bad:
    questions, annotations = folder / "q.json", folder / "a.json"

    def run() -> None:
        check_image_name(template, "image_name")
        fields = [field for _, field, *_ in Formatter().parse(template) if field is not None]
        assert set(fields) == {"image_id"}
        name = template.format(image_id=7)
        assert (folder / "images" / name).resolve().is_relative_to((folder / "images").resolve())
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        picture().save(target, "PNG")
        (example,) = read_vqa_files(questions, annotations, folder / "images", template)
        assert Path(example.image) == target
        target.unlink()

    return Bad(repr(template), run, ("image_name",))


def test_templates_of_image_names(tmp_path: Path) -> None:
    ids = {"question_id": 1, "image_id": 7}
    answers = [{"answer": "a"}] * 10
    (tmp_path / "q.json").write_text(json.dumps({"questions": [{**ids, "question": "q?"}]}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": [{**ids, "answers": answers}]}))
    (tmp_path / "images").mkdir()
    rng = random.Random(5)
    templates = ["".join(rng.choices(PIECES, k=rng.randrange(1, 6))) for _ in range(400)]
    bad = [_template(template, tmp_path) for template in dict.fromkeys(templates)]
    counts = try_all("image names", bad)
    assert counts["fine"] > 10
    assert {path.name for path in tmp_path.iterdir()} == {"q.json", "a.json", "images"}


def test_pools_with_damaged_images(tmp_path: Path) -> None:
    """A pool's image is opened when the pool is read; file, line and image are named."""
    path, image = tmp_path / "pool.jsonl", tmp_path / "a.png"
    line = {"image": "a.png", "question": "q?", "answer": "a"}
    path.write_text(json.dumps(line) + "\n")
    picture().save(image)
    content, whole = image.read_bytes(), np.asarray(picture())
    rng = random.Random(6)

    def bad(name: str, made: bytes) -> Bad:
        def run() -> None:
            image.write_bytes(made)
            (example,) = read_pool(path)
            assert example.image_sha256 == image_sha256(image)
            np.testing.assert_array_equal(np.asarray(open_image(image)), whole)

        return Bad(name, run, ("pool.jsonl, line 1: image ",))

    try_all("pools' images", (bad(*each) for each in damaged(content, rng, 120)))
