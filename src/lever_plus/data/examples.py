"""Queries and examples: what is asked, and what may be shown. JSON-lines files of examples."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from lever_plus.data.images import check_unchanged, image_sha256
from lever_plus.errors import UserError
from lever_plus.files.checking import Row
from lever_plus.files.json_files import json_lines_as
from lever_plus.files.reading import found_in
from lever_plus.files.writing import write_json_lines

SPLITS = ("train", "dev", "test")
LARGEST_ID: Final = 2**63 - 1
PREPARE: Final = "run `lever-plus prepare` (or `dvc repro prepare`)"
Id = Annotated[int, Field(ge=0, le=LARGEST_ID)]
"""The id of a question or an image, in files."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is to be answered; its answer is not part of it.

    Attributes:
        image: Path of the image file.
        question: The question.
        image_sha256: Key of the image's content, see `images.image_sha256`; "" if it is not known
            yet, see `hashed_query`.
    """

    image: str
    question: str
    image_sha256: str = ""

    def __hash__(self) -> int:
        """Return a cheap hash, because requests of many queries are hashed all the time."""
        return hash(self.image_sha256 or self.image)


@dataclass(frozen=True, slots=True)
class Example:
    """One VQA item: a query with its answer, so that it can be shown as a demonstration.

    Attributes:
        image: Path of the image file; in files it is relative to the project's root.
        question: The question as it is written in the question file.
        answer: The answer that is shown when the example is a demonstration: the most frequent of
            `answers`.
        answers: The human answers (10 in VQAv2). They are empty if they are not known; the example
            can then be shown, but not scored.
        question_id: Unique over all splits; pointers and pools in files name examples by it.
        image_id: Examples with the same one show the same image.
        image_sha256: Key of the image's content, see `images.image_sha256`; "" if it is not known
            yet, see `hashed`.
        fallback: Whether its score is an exact match instead of VQA accuracy. The settings
            can allow that for a question without as many answers as the metric needs.
    """

    image: str
    question: str
    answer: str
    answers: tuple[str, ...] = ()
    question_id: int = 0
    image_id: int = 0
    image_sha256: str = ""
    fallback: bool = False

    def __hash__(self) -> int:
        """Return a cheap hash, because requests of many examples are hashed all the time."""
        return hash(self.image_sha256 or self.image)

    @property
    def query(self) -> Query:
        """The example's image and question, without its answer."""
        return Query(self.image, self.question, self.image_sha256)


class ExampleRow(Row):
    """A line of a file of examples; its image is relative to the project's root."""

    image: Annotated[str, Field(min_length=1)]
    question: str
    answer: str
    answers: tuple[str, ...]
    question_id: Id
    image_id: Id
    image_sha256: str
    fallback: bool


def hashed_query(query: Query) -> Query:
    """Return the query with the hash of its image; UserError if the image cannot be read."""
    if query.image_sha256:
        return query
    return replace(query, image_sha256=image_sha256(query.image))


def hashed(example: Example) -> Example:
    """Return the example with the hash of its image; UserError if the image cannot be read."""
    if example.image_sha256:
        return example
    return replace(example, image_sha256=image_sha256(example.image))


def fresh_ids(taken: Iterable[int]) -> Iterator[int]:
    """Yield ids that are not taken: those above all that are, up to the largest, then free ones.

    The largest id is `LARGEST_ID`; one above it would not fit into a table.
    """
    known = set(taken)
    yield from range(max(known, default=0) + 1, LARGEST_ID + 1)
    yield from (number for number in count(1) if number not in known)


def check_images(shown: Iterable[Example | Query]) -> None:
    """Refuse images that were changed since they were hashed; UserError names the first."""
    known = {(each.image, each.image_sha256): None for each in shown if each.image_sha256}
    check_unchanged(known)


def most_frequent_answer(answers: Sequence[str]) -> str:
    """Return the most frequent answer; if several are, the one that was given first."""
    return Counter(answers).most_common(1)[0][0]


def write_examples(path: Path, examples: Iterable[Example], *roots: Path) -> None:
    """Write one example per line, with sorted keys, so that equal data give equal bytes.

    The paths of images inside one of the folders `roots` are written relative to it.
    """
    rows = ({**asdict(e), "image": relative_image(e.image, *roots)} for e in examples)
    write_json_lines(path, rows)


def relative_image(image: str, *roots: Path) -> str:
    """Return an image's path for a file: relative to the first of the folders that it is in."""
    path = Path(image)
    inside = next((path.relative_to(root) for root in roots if path.is_relative_to(root)), path)
    return inside.as_posix()


def read_examples(path: Path, root: Path = Path()) -> list[Example]:
    """Read the examples of one split.

    Args:
        path: A file that `write_examples` wrote.
        root: Folder that the paths of the images are relative to.

    Raises:
        UserError: The file is missing or empty, a line is not an example, or two have the same id.
    """
    folders: dict[Path, Path] = {}
    examples = []
    for row in json_lines_as(ExampleRow, path, PREPARE):
        folder, name = Path(row.image).parent, Path(row.image).name
        if folder not in folders:
            folders[folder] = found_in(root, folder)
        image = str(folders[folder] / name)
        examples.append(Example(**{**dict(row), "image": image}))
    if not examples:
        raise UserError(f"{path} holds no example: {PREPARE}.")
    _check_distinct(examples, str(path))
    return examples


def _check_distinct(examples: Sequence[Example], where: str) -> None:
    counts = Counter(example.question_id for example in examples)
    twice = next((number for number, count in counts.items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{where}: question id {twice} occurs twice: {PREPARE}.")


def read_splits(folder: Path, root: Path = Path()) -> dict[str, list[Example]]:
    """Read {"train": [...], "dev": [...], "test": [...]}, which the stage `prepare` wrote.

    Raises:
        UserError: As `read_examples`; also if two examples of different splits have the same id.
    """
    splits = {split: read_examples(folder / f"{split}.jsonl", root) for split in SPLITS}
    _check_distinct([e for examples in splits.values() for e in examples], str(folder))
    return splits


def by_id(splits: Mapping[str, Sequence[Example]]) -> dict[int, Example]:
    """Return all examples of all splits by their id."""
    return {e.question_id: e for examples in splits.values() for e in examples}
