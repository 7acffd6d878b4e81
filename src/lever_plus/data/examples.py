"""Queries and examples: what is asked, and what may be shown; JSON-lines files of examples."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lever_plus.data.images import image_sha256
from lever_plus.errors import UserError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Query:
    """What is to be answered; its answer is not part of it.

    Attributes:
        image: Path of the image file.
        question: The question.
        image_sha256: Key of the image's content, see `images.image_sha256`; "" where it is not
            known yet, see `hashed`.
    """

    image: str
    question: str
    image_sha256: str = ""

    def __hash__(self) -> int:
        """Hash what tells most queries apart: requests of many are hashed all the time."""
        return hash(self.image_sha256 or self.image)


@dataclass(frozen=True, slots=True)
class Example:
    """One VQA item: a query with its answer, so that it can be shown as a demonstration.

    Attributes:
        image: Path of the image file; in files it is relative to the project's root.
        question: The question as it is written in the question file.
        answer: The answer that a demonstration shows: the most frequent of `answers`.
        answers: The human answers (10 in VQAv2); empty where they are not known: such an example
            can be shown, but not scored.
        question_id: Unique over all splits; pointers and pools in files name examples by it.
        image_id: Examples that share it show the same image.
        image_sha256: Key of the image's content, see `images.image_sha256`; "" where it is not
            known yet, see `hashed`.
        fallback: Whether its scores are exact matches, not the official metric: it has another
            number of answers than the metric needs, and the settings allow that.
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
        """Hash what tells most examples apart: requests of many are hashed all the time."""
        return hash(self.image_sha256 or self.image)

    @property
    def query(self) -> Query:
        """What the example asks, without its answer."""
        return Query(self.image, self.question, self.image_sha256)


def hashed_query(query: Query) -> Query:
    """Return a query that knows the hash of its image; UserError if that cannot be read."""
    if query.image_sha256:
        return query
    return replace(query, image_sha256=image_sha256(query.image))


def hashed(example: Example) -> Example:
    """Return an example that knows the hash of its image; UserError if that cannot be read."""
    if example.image_sha256:
        return example
    return replace(example, image_sha256=image_sha256(example.image))


def most_frequent_answer(answers: Sequence[str]) -> str:
    """Return the most frequent answer; of several, the one that was given first."""
    return Counter(answers).most_common(1)[0][0]


def write_examples(path: Path, examples: Iterable[Example], root: Path = Path()) -> None:
    """Write one example a line, with sorted keys, so that equal data give equal bytes.

    Images inside `root` are named relative to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            image = Path(example.image)
            inside = image.relative_to(root) if image.is_relative_to(root) else image
            fields = {**asdict(example), "image": inside.as_posix()}
            file.write(json.dumps(fields, ensure_ascii=False, sort_keys=True) + "\n")


def read_examples(path: Path, root: Path = Path()) -> list[Example]:
    """Read the examples of one split.

    Args:
        path: File of `write_examples`.
        root: Folder that the paths of their images are relative to.

    Raises:
        UserError: The file is missing, or a line of it is not an example.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `lever-plus prepare` (or `dvc repro prepare`).")
    examples = []
    # Bytes: only a line feed ends an example; a question may hold other line separators.
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        try:
            fields = json.loads(line)
            image = str(root / fields["image"])
            examples.append(
                Example(**{**fields, "answers": tuple(fields["answers"]), "image": image})
            )
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}, line {number}: not an example ({error}). Run `lever-plus prepare` again."
            ) from error
    return examples


def read_splits(folder: Path, root: Path = Path()) -> dict[str, list[Example]]:
    """Read {"train": [...], "dev": [...], "test": [...]} as the prepare stage wrote them."""
    return {split: read_examples(folder / f"{split}.jsonl", root) for split in SPLITS}


def by_id(splits: Mapping[str, Sequence[Example]]) -> dict[int, Example]:
    """Return all examples of all splits by their id."""
    return {e.question_id: e for examples in splits.values() for e in examples}
