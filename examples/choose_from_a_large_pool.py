"""What a selector loses, or gains, if it sees only a question's nearest neighbours in a large pool.

    python examples/choose_from_a_large_pool.py --checkpoint artifacts/grpo/seed1/grpo

The pool is all training examples; 64 drawn from them are what the selector was trained with.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer

from lever_plus import Example, LivePool, Query, Selector, evaluate, load_selector, open_vlm
from lever_plus.data.examples import read_examples

PREPARED = Path("artifacts/prepare")


class Sees:
    """Chooses from a part of the pool: neighbours of the question, or some drawn for it."""

    def __init__(self, pool: LivePool, drawn: int = 0) -> None:
        """Keep the pool; drawn: how many examples are drawn for each question, 0 for none."""
        self.pool, self.drawn, self.rng = pool, drawn, np.random.default_rng(0)

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return the demonstrations for a question."""
        if not self.drawn:
            return self.pool.select(query, shots)
        some = self.rng.choice(len(pool), self.drawn, replace=False)
        return self.pool.selector.select(query, [pool[i] for i in some], shots)


def main(
    checkpoint: str = "artifacts/grpo/seed1/grpo",
    vlm: str = "shipped:vlm",
    questions: int = 1000,
    shots: int = 2,
) -> None:
    """Print accuracies with intervals, and how many picks from the whole pool neighbours hold."""
    asked = read_examples(PREPARED / "test.jsonl")[:questions]
    pool, selector = read_examples(PREPARED / "train.jsonl"), load_selector(checkpoint)
    some = min(64, len(pool))
    whole = LivePool(selector, pool, candidates=None)
    near = {count: LivePool(selector, pool, candidates=count) for count in (64, 256)}
    ways: dict[str, Selector] = {f"{some} drawn": Sees(whole, some), "whole pool": Sees(whole)}
    ways |= {f"{count} nearest": Sees(live) for count, live in near.items()}
    typer.echo(str(evaluate(ways, asked, pool, open_vlm(vlm), shots=shots)))
    for count, live in near.items():
        held = [
            each.question_id in live.neighbours(example.query)
            for example in asked
            for each in whole.select(example.query, shots)
        ]
        typer.echo(f"{count} nearest hold {sum(held) / len(held):.0%} of the whole pool's picks")


if __name__ == "__main__":
    typer.run(main)
