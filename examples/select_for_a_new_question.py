"""Let a trained selector choose demonstrations for a question that nobody has seen.

    python examples/select_for_a_new_question.py photo.jpg "What is it?" --pool pool.jsonl

A line of the pool is {"image": "a.jpg", "question": "...", "answer": "..."}, images relative to the
file. Without --pool it chooses from the first training examples of this project.
"""

from pathlib import Path

import typer

from lever_plus import Query, load_selector, open_vlm, read_pool
from lever_plus.data.examples import read_examples
from lever_plus.vlm.request import Request

TRAIN = Path("artifacts/prepare/train.jsonl")


def main(
    image: str,
    question: str,
    checkpoint: Path = Path("artifacts/grpo/seed1/grpo"),
    pool: Path | None = None,
    shots: int = 2,
    encoder: Path | None = None,
    vlm: Path | None = None,
) -> None:
    """Print the demonstrations and, with a VLM, its answers without and with them.

    The encoder is found where it was when the selector was trained, unless it is named.
    """
    examples = read_pool(pool) if pool else read_examples(TRAIN)[:500]
    selector = load_selector(checkpoint, encoder)
    query = Query(image, question)
    chosen = selector.select(query, examples, shots)
    for number, example in enumerate(chosen, start=1):
        typer.echo(f"{number}. {example.question} {example.answer} ({example.image})")
    if vlm is not None:
        requests = [Request((), query), Request(tuple(chosen), query)]
        without, with_them = open_vlm(vlm).answers(requests)
        typer.echo(f"without demonstrations: {without}\nwith them: {with_them}")


if __name__ == "__main__":
    typer.run(main)
