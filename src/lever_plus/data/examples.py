"""One VQA item, and JSON-lines files of them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lever_plus.errors import UserError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One VQA item.

    Attributes:
        question_id: Unique over all splits; pointers and pools name examples by it.
        image_id: Examples that share it show the same image.
        image: Path of the image file, relative to the folder the command runs in.
        image_sha256: Hash of its bytes, so that the file of examples changes when an image does.
        question: The question as it stands in the question file.
        answers: The human answers (10 in VQAv2).
        answer: The most frequent of them, the one a demonstration shows.
        fallback: Whether its scores are exact matches, not the official metric: it has another
            number of answers than the metric needs, and the settings allow that.
    """

    question_id: int
    image_id: int
    image: str
    image_sha256: str
    question: str
    answers: tuple[str, ...]
    answer: str
    fallback: bool = False


def most_frequent_answer(answers: Sequence[str]) -> str:
    """Return the most frequent answer; of several, the one that was given first."""
    return Counter(answers).most_common(1)[0][0]


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one example a line, with sorted keys, so that equal data give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(asdict(example), ensure_ascii=False, sort_keys=True) + "\n")


def read_examples(path: Path) -> list[Example]:
    """Read the examples of one split.

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
            examples.append(Example(**{**fields, "answers": tuple(fields["answers"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}, line {number}: not an example ({error}). Run `lever-plus prepare` again."
            ) from error
    return examples


def read_splits(folder: Path) -> dict[str, list[Example]]:
    """Read {"train": [...], "dev": [...], "test": [...]} as the prepare stage wrote them."""
    return {split: read_examples(folder / f"{split}.jsonl") for split in SPLITS}
