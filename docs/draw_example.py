"""Draws docs/example.png: one question, two demonstrations that explain it, and the VLM's answers.

Run it in the project's folder after `make repro`: python docs/draw_example.py
"""

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

from lever_plus import open_vlm
from lever_plus.data.examples import Example, read_splits
from lever_plus.house_words.maker import Latent, read_latent
from lever_plus.pipeline.paths import Paths
from lever_plus.vlm.request import Request

RIGHT, WRONG = "#1a7f37", "#b42318"
SHOWN = ("no demonstration", "only the first", "only the second", "both")


def candidates(
    splits: dict[str, list[Example]], hidden: dict[int, Latent]
) -> Iterator[tuple[Example, Example, Example]]:
    """Yield test questions in house words with a demonstration for each half, in other words."""
    halves = {
        half: [e for e in splits["train"] if hidden[e.question_id].needs == (half,)]
        for half in ("attribute", "language")
    }
    for query in splits["test"]:
        asked = hidden[query.question_id]
        if len(asked.needs) < len(halves):
            continue
        first = next(
            e
            for e in halves["attribute"]
            if hidden[e.question_id].attribute == asked.attribute
            and hidden[e.question_id].attribute_word != asked.attribute_word
        )
        second = next(
            e
            for e in halves["language"]
            if hidden[e.question_id].language == asked.language
            and hidden[e.question_id].style_word != asked.style_word
        )
        yield first, second, query


def main() -> None:
    """Draw the first question that the VLM answers with both demonstrations alone."""
    paths = Paths()
    splits, hidden = read_splits(paths.prepare, paths.root), read_latent(paths.source)
    vlm = open_vlm("shipped:vlm", max_new_tokens=1)
    for first, second, query in candidates(splits, hidden):
        pointers = [(), (first,), (second,), (first, second)]
        answers = vlm.answers([Request(shown, query.query) for shown in pointers])
        if [given == query.answer for given in answers] == [False, False, False, True]:
            break
    else:
        raise SystemExit("no question needs both of its demonstrations")
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.9), width_ratios=(1, 1, 1, 1.15))
    titles = ("demonstration 1", "demonstration 2", "question")
    for axis, example, title in zip(axes, (first, second, query), titles, strict=False):
        with Image.open(example.image) as image:
            axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        # Before the comma or the question mark: a line of a card's width.
        asked = example.question.replace(", ", ",\n").replace("? ", "?\n")
        axis.set_title(f"{title}\n\n{asked}", fontsize=9)
        axis.set_xlabel("?" if example is query else example.answer, fontsize=11, weight="bold")
    axes[3].axis("off")
    axes[3].set_title("the VLM's answer", fontsize=9)
    for line, (shown, given) in enumerate(zip(SHOWN, answers, strict=True)):
        height = 0.82 - 0.22 * line
        axes[3].text(0.02, height, shown, fontsize=9, va="center")
        colour = RIGHT if given == query.answer else WRONG
        axes[3].text(
            0.98, height, given, fontsize=11, weight="bold", color=colour, ha="right", va="center"
        )
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("example.png"), dpi=110)


if __name__ == "__main__":
    main()
