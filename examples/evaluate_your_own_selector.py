"""Compare a selector of your own with others: accuracies and differences, with intervals.

    python examples/evaluate_your_own_selector.py --questions questions.jsonl --pool pool.jsonl \
        --vlm models/vlm

A line of either file is {"image": ..., "question": ..., "answers": [...]}, images relative to the
file; questions need their ten human answers. Without files, this project's examples are used.
"""

from collections.abc import Sequence
from pathlib import Path

import typer

from lever_plus import Example, Query, Selector, evaluate, load_selector, open_vlm, read_pool
from lever_plus.data.examples import read_examples
from lever_plus.selectors.baselines import RandomSelector

PREPARED = Path("artifacts/prepare")


class SharedWords:
    """Shows the examples whose questions share most words with the query's, the nearest last."""

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return `shots` examples of the pool: one method is all that a selector needs."""
        words = set(query.question.lower().split())
        shared = [len(words & set(example.question.lower().split())) for example in pool]
        return [pool[i] for i in sorted(range(len(pool)), key=shared.__getitem__)[-shots:]]


def main(
    questions: Path | None = None,
    pool: Path | None = None,
    vlm: str = "shipped:vlm",
    checkpoint: Path | None = None,
    shots: int = 2,
    allow_fallback: bool = False,
) -> None:
    """Print accuracies at every number of demonstrations, and differences to the first selector."""
    asked = read_pool(questions) if questions else read_examples(PREPARED / "test.jsonl")[:100]
    examples = read_pool(pool) if pool else read_examples(PREPARED / "train.jsonl")[:64]
    selectors: dict[str, Selector] = {"random": RandomSelector(seed=1), "words": SharedWords()}
    if checkpoint is not None:
        selectors["learned"] = load_selector(checkpoint)
    found = evaluate(
        selectors, asked, examples, open_vlm(vlm), shots=shots, allow_fallback=allow_fallback
    )
    typer.echo(str(found))
    for row in found.differences:
        low, high = (100 * value for value in row["ci95"])
        told = f"{100 * row['difference']:+.1f} [{low:+.1f}, {high:+.1f}] points"
        typer.echo(f"{row['method']} minus {row['versus']}, shots {row['shots']}: {told}")


if __name__ == "__main__":
    typer.run(main)
