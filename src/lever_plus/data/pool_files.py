"""Reads a user's own pools: a list of images, questions and answers, or files in VQAv2 format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lever_plus.data.examples import Example, fresh_ids
from lever_plus.data.lists import read_list
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes


def read_pool(path: str | Path) -> list[Example]:
    """Read the examples that a selector may choose from.

    A line is {"image": ..., "question": ..., "answer": ...}; `read_list` describes what else it may
    be. Without `question_id`, an example has the number of its line; without `image_id`, equal
    images get the same id, and different images different ones.

    Args:
        path: JSON lines, a JSON list (.json) or CSV with named columns (.csv); the images' paths
            are relative to its folder.

    Raises:
        UserError: The file is missing, an image cannot be opened, or a line is not an example; the
            file and the line are named.
    """
    path = Path(path)
    read = read_list(path, path.parent)
    return with_numbered_images(with_image_hashes(list(read.values()), list(read)))


def read_vqa_pool(
    questions: str | Path, annotations: str | Path, images: str | Path, image_name: str
) -> list[Example]:
    """Read a pool from files in VQAv2 format; arguments and errors as `read_vqa_files`.

    A question may have any number of human answers: demonstrations are shown, not scored.
    """
    read = read_vqa_files(
        Path(questions), Path(annotations), Path(images), image_name, allow_fallback=True
    )
    return with_image_hashes(read)


def with_numbered_images(examples: Sequence[Example], above: int = 0) -> list[Example]:
    """Give ids to images that have none: equal images the same, above all ids that are there.

    Args:
        examples: Examples whose images' hashes are known.
        above: New ids are above this number, too.
    """
    ids = {example.image_sha256: example.image_id for example in examples if example.image_id}
    fresh = fresh_ids((above, *ids.values()))
    for example in examples:
        if example.image_sha256 not in ids:
            ids[example.image_sha256] = next(fresh)
    return [replace(e, image_id=e.image_id or ids[e.image_sha256]) for e in examples]
