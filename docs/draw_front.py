"""Draws docs/front.png: what a VLM answers after no, similar and chosen demonstrations.

The question is the first of the test questions. Run it in the project's folder after `make repro`:
python docs/draw_front.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from lever_plus import load_selector, open_vlm
from lever_plus.config.file import load_params
from lever_plus.data.examples import Example
from lever_plus.evaluation.methods import ZERO_SHOT
from lever_plus.features.similarities import STTR
from lever_plus.hosts.demo.play import LEARNED, Playground, Shown
from lever_plus.pipeline.demo import pipeline_world, trained_checkpoint
from lever_plus.pipeline.paths import Paths

SHOTS = 2
RIGHT, WRONG, PALE = "#1a7f37", "#b42318", "#59636e"
ROWS = {
    ZERO_SHOT: "shown nothing",
    STTR: "shown the two most\nsimilar examples",
    LEARNED: "shown the two that\nLever-Plus chooses",
}
WIDTH, HEIGHT = 11.4, 4.5


def picture(figure: Figure, image: str, left: float, bottom: float, side: float) -> None:
    """Put an image into a figure; left, bottom and side in inches."""
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, side / WIDTH, side / HEIGHT))
    with Image.open(image) as pixels:
        axes.imshow(pixels)
    axes.set(xticks=[], yticks=[])


def text(figure: Figure, left: float, bottom: float, words: str, **style: object) -> None:
    """Write words into a figure; left and bottom in inches."""
    figure.text(left / WIDTH, bottom / HEIGHT, words, **style)


def demonstration(figure: Figure, example: Example, left: float, bottom: float) -> None:
    """Draw an example: its image, its question and its answer."""
    picture(figure, example.image, left, bottom, 0.95)
    asked = example.question.replace(", ", ",\n").replace("? ", "?\n").replace(" in ", "\nin ", 1)
    text(figure, left + 1.05, bottom + 0.9, asked.replace("\n\n", "\n"), fontsize=9, va="top")
    text(figure, left + 1.05, bottom + 0.05, example.answer, fontsize=11, weight="bold")


def row(figure: Figure, shown: Shown, bottom: float) -> None:
    """Draw what a method showed the VLM, and what it answered."""
    text(figure, 3.0, bottom + 0.47, ROWS[shown.method], fontsize=10.5, va="center")
    for number, example in enumerate(shown.examples):
        demonstration(figure, example, 4.75 + 2.45 * number, bottom)
    right = shown.score is not None and shown.score.vqa_correct > 0
    sign = "✓" if right else "✗"
    style = {"color": RIGHT if right else WRONG, "fontsize": 14, "weight": "bold"}
    text(figure, 9.8, bottom + 0.47, f"{shown.answer} {sign}", va="center", **style)


def main() -> None:
    """Ask the first test question in every way, and draw what came of it."""
    paths, params = Paths(), load_params(Path("params.yaml"))
    play = Playground(
        load_selector(trained_checkpoint(paths, params)),
        lambda: open_vlm("shipped:vlm", max_new_tokens=1),
        pipeline_world(paths, params),
        SHOTS,
    )
    example = play.gallery[0]
    found = play.ask(play.query(example.image, example.question))
    figure = plt.figure(figsize=(WIDTH, HEIGHT))
    text(figure, 0.2, 4.1, "The question", fontsize=11, color=PALE)
    picture(figure, example.image, 0.2, 1.55, 2.2)
    asked = example.question.replace(", ", ",\n")
    text(figure, 0.2, 1.4, asked, fontsize=13, weight="bold", va="top")
    meaning = f"It asks for the {play.meaning(example)}.\nExpected: {example.answer}."
    text(figure, 0.2, 0.8, meaning, fontsize=10, color=PALE, va="top")
    text(figure, 3.0, 4.1, "The same frozen model is ...", fontsize=11, color=PALE)
    text(figure, 9.8, 4.1, "... and answers", fontsize=11, color=PALE)
    for number, method in enumerate(ROWS):
        shown = found.of(method)
        assert shown is not None
        row(figure, shown, 2.85 - 1.28 * number)
    figure.savefig(Path(__file__).with_name("front.png"), dpi=120)


if __name__ == "__main__":
    main()
