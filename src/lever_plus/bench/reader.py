"""Time and memory to read files as large as those of VQAv2's training split.

The files are made here, in the format of the real ones and with as many questions, answers and
image names. Images are empty files, because the reader looks only at their names.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

QUESTIONS: Final = 443_757
IMAGES: Final = 82_783
ANSWERS: Final = 10


def run() -> dict[str, float | int]:
    """Read the files in a process of their own; return seconds, peak memory in MB, and counts."""
    with TemporaryDirectory() as folder:
        make_files(Path(folder))
        command = [sys.executable, "-m", "lever_plus.bench.reader", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float | int] = json.loads(done.stdout)
    return measured


def make_files(folder: Path, questions: int = QUESTIONS, images: int = IMAGES) -> None:
    """Write a questions file, an annotations file and empty images."""
    (folder / "images").mkdir()
    for image in range(images):
        (folder / "images" / f"COCO_train2014_{image:012d}.jpg").touch()
    asked = [
        {"image_id": i % images, "question": f"What is thing {i % 977}?", "question_id": i}
        for i in range(questions)
    ]
    (folder / "questions.json").write_text(json.dumps({"questions": asked}), encoding="utf-8")
    with (folder / "annotations.json").open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for i in range(questions):
            answers = [
                {"answer": f"thing {(i * k) % 3119}", "answer_confidence": "yes", "answer_id": k}
                for k in range(1, ANSWERS + 1)
            ]
            row = {
                "question_type": "what is",
                "multiple_choice_answer": "thing",
                "answers": answers,
                "image_id": i % images,
                "answer_type": "other",
                "question_id": i,
            }
            file.write(("," if i else "") + json.dumps(row))
        file.write("]}")


def measure(folder: Path) -> dict[str, float | int]:
    """Read the files of a folder in this process; return time and peak memory."""
    from lever_plus.bench.memory import peak_rss_mb
    from lever_plus.data.vqa_files import read_vqa_files

    start = time.perf_counter()
    examples = read_vqa_files(
        folder / "questions.json",
        folder / "annotations.json",
        folder / "images",
        "COCO_train2014_{image_id:012d}.jpg",
    )
    seconds = time.perf_counter() - start
    return {
        "questions": len(examples),
        "seconds": round(seconds, 2),
        "peak_rss_mb": peak_rss_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))  # noqa: T201
