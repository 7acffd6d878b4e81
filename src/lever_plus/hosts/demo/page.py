"""The page itself, in Gradio: its layout, its buttons, and what they do."""

import os
from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any, Final, NamedTuple

from lever_plus.data.images import open_image
from lever_plus.errors import UserError, needs
from lever_plus.evaluation.methods import ZERO_SHOT
from lever_plus.hosts.demo.play import LEARNED, STOPPING, Playground, Round
from lever_plus.hosts.demo.show import TITLES, View, options, problem

# Gradio reads this when it is imported; without it, Gradio would report usage to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
with needs("demo", "lever-plus demo"):
    import gradio as gr

Change = Callable[[list[int], Round | None], list[Any]]
PICTURE: Final = 240
"""Longest side of a picture of the gallery, in pixels."""
FONTS: Final = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
HAND: Final = (
    '<div class="lp-head"><h2>By hand</h2><p class="lp-note">Change which demonstrations are '
    "shown, or their order, and ask the VLM again.</p></div>"
)
AT_ONCE: Final[dict[str, Any]] = {"queue": False}
"""Every event is one request. Gradio's queue would answer over a stream; if a browser closes the
stream just as it sends the next event, no answer comes, and the page hangs."""
INSIDE: Final[dict[str, Any]] = {**AT_ONCE, "api_visibility": "private"}
QUIET: Final[dict[str, Any]] = {**INSIDE, "show_progress": "hidden"}
STYLE: Final = files("lever_plus.hosts.demo").joinpath("page.css")


def theme() -> Any:
    """Return the page's theme; it uses the fonts of the visitor's own system."""
    return gr.themes.Base(
        primary_hue="emerald",
        neutral_hue="slate",
        font=FONTS,
        font_mono=("ui-monospace", "monospace"),
    )


def css() -> str:
    """Return the style sheet."""
    return STYLE.read_text(encoding="utf-8")


def build(play: Playground, price: float | None = None) -> Any:
    """Return the page.

    Args:
        play: Answers the questions that are asked on the page.
        price: Price of a demonstration at first; None: the policy never stops early.
    """
    actions = Actions(play)
    first = play.gallery[0] if play.gallery else None
    image, question = (first.image, first.question) if first else (None, "")
    with gr.Blocks(title="Lever-Plus", fill_width=True, analytics_enabled=False) as page:
        asked_image, found, hand = gr.State(image), gr.State(None), gr.State([])
        gr.HTML(_intro(play))
        with gr.Row():
            with gr.Column(scale=3):
                gallery = gr.Gallery(
                    [(_small(e.image), e.question) for e in play.gallery],
                    label="Questions to pick from",
                    columns=6,
                    height="auto",
                    format="png",
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    visible=bool(play.gallery),
                    elem_classes="lp-gallery",
                )
                upload = gr.UploadButton(
                    "Or upload an image", file_types=["image"], size="sm", variant="secondary"
                )
            with gr.Column(scale=2):
                preview = gr.HTML(actions.preview(image, question))
                text = gr.Textbox(question, label="Question", max_lines=3, submit_btn=False)
                slider = gr.Slider(
                    0,
                    play.highest_price or 1,
                    price or 0,
                    step=(play.highest_price or 1) / 40,
                    label=f"Price: what a {play.price_per} must be worth",
                    info="In units of reward; the policy stops when no further one is worth it.",
                    visible=price is not None,
                )
                ask = gr.Button("Ask", variant="primary")
        shown = gr.HTML()
        with gr.Column(visible=False) as by_hand:
            gr.HTML(HAND)
            with gr.Row():
                start = gr.Dropdown([], label="Start with the demonstrations of")
                more = gr.Dropdown(
                    [],
                    label=f"Add one from the pool (at most {play.most})",
                    value=None,
                    filterable=True,
                )

            rows = [_row(place) for place in range(play.most)]
            again = gr.Button("Ask again", variant="primary")
            said = gr.HTML()

        asked = [asked_image, text, slider]
        held = [hand, *(part for row in rows for part in row.shown)]
        outputs = [shown, found, start, more, by_hand, said, *held]
        gr.on([ask.click, text.submit], actions.ask, asked, outputs, api_name="ask", **AT_ONCE)
        # The first question is answered when the page opens, so that there is something to see.
        if first:
            page.load(actions.ask, asked, outputs, **INSIDE)
        gallery.select(_picked(actions), None, [asked_image, text, preview], **INSIDE).then(
            actions.ask, asked, outputs, **INSIDE
        )
        upload.upload(
            actions.upload, [upload, text], [asked_image, preview], api_name="upload", **AT_ONCE
        )
        text.change(actions.preview, [asked_image, text], preview, **QUIET)
        start.input(actions.start, [found, start], held, api_name="start", **AT_ONCE)
        more.input(actions.add, [hand, found, more], [more, *held], api_name="add", **AT_ONCE)
        for place, row in enumerate(rows):
            for button, change in zip(row.buttons, _changes(actions, place), strict=True):
                button.click(change, [hand, found], held, **QUIET)
        again.click(actions.again, [found, hand], said, api_name="again", **AT_ONCE)
    return page


class Actions:
    """What the page's buttons and fields do; whatever goes wrong becomes a sentence."""

    def __init__(self, play: Playground) -> None:
        """Keep the playground, which answers questions."""
        self.play, self.view = play, View(play)

    def preview(self, image: str | None, question: str) -> str:
        """Return the image of the question as HTML."""
        try:
            return self.view.question(image, question)
        except UserError as error:
            return problem(error)

    def upload(self, file: str, question: str) -> tuple[str | None, str]:
        """Take a user's own image; return its file, and its preview as HTML."""
        try:
            open_image(file)
        except UserError as error:
            return None, problem(error)
        return file, self.preview(file, question)

    def ask(self, image: str | None, question: str, price: float) -> tuple[Any, ...]:
        """Ask with every method; the choice by hand begins with the policy's demonstrations."""
        try:
            query = self.play.query(image, question)
            found = self.play.ask(query, price if self.play.highest_price else None)
            pool = options(self.play.candidates(query))
        except UserError as error:
            nothing = gr.update(choices=[], value=None)
            hidden = gr.update(visible=False)
            return problem(error), None, nothing, nothing, hidden, "", *self.held([], None)
        methods = [s.method for s in found.shown if s.method != ZERO_SHOT]
        first = STOPPING if STOPPING in methods else LEARNED
        names = [(TITLES.get(method, method), method) for method in methods]
        return (
            self.view.round(found),
            found,
            gr.update(choices=names, value=first),
            gr.update(choices=pool, value=None),
            gr.update(visible=True),
            "",
            *self.start(found, first),
        )

    def start(self, found: Round | None, method: str) -> list[Any]:
        """Start the choice by hand with a method's demonstrations; return as `held` does."""
        shown = found.of(method) if found else None
        return self.held([e.question_id for e in shown.examples] if shown else [], found)

    def add(self, numbers: list[int], found: Round | None, number: int | None) -> list[Any]:
        """Show one more demonstration, as the last; one that is already shown moves there.

        Returns:
            The new value of the list to choose from, which is empty again; then as `held`.
        """
        others = [each for each in numbers if each != number]
        changed = numbers if number is None else [*others, number][: self.play.most]
        return [None, *self.held(changed, found)]

    def moved(self, numbers: list[int], place: int, by: int) -> list[int]:
        """Move a demonstration earlier (by -1) or later (by 1)."""
        other = place + by
        if not (0 <= place < len(numbers) and 0 <= other < len(numbers)):
            return numbers
        changed = list(numbers)
        changed[place], changed[other] = changed[other], changed[place]
        return changed

    def removed(self, numbers: list[int], place: int) -> list[int]:
        """Leave a demonstration out."""
        return [*numbers[:place], *numbers[place + 1 :]]

    def held(self, numbers: list[int], found: Round | None) -> list[Any]:
        """Return the numbers chosen by hand, and updates for each place: row, card and "later"."""
        known = {e.question_id: e for e in self.play.pool(found.query)} if found else {}
        shown = [known[number] for number in numbers if number in known]
        updates: list[Any] = [numbers]
        for place in range(self.play.most):
            here = shown[place] if place < len(shown) else None
            card = self.view.card(here, f"{place + 1} of {len(shown)}") if here else ""
            updates += [
                gr.update(visible=here is not None),
                card,
                gr.update(interactive=place < len(shown) - 1),
            ]
        return updates

    def again(self, found: Round | None, numbers: list[int]) -> str:
        """Ask the VLM again, with the demonstrations chosen by hand."""
        try:
            if found is None:
                raise UserError("no question was asked yet: ask one first.")
            shown = self.play.ask_by_hand(found.query, numbers)
            return f'<div class="lp-methods">{self.view.column(shown)}</div>'
        except UserError as error:
            return problem(error)


def _picked(actions: Actions) -> Callable[..., tuple[str, str, str]]:
    """Return the function that is called when a question of the gallery is picked."""

    def pick(event: gr.SelectData) -> tuple[str, str, str]:
        example = actions.play.gallery[event.index]
        return example.image, example.question, actions.preview(example.image, example.question)

    return pick


class _Row(NamedTuple):
    """The place of one demonstration chosen by hand: the parts that change, and its buttons."""

    shown: tuple[Any, Any, Any]
    buttons: tuple[Any, Any, Any]


def _row(place: int) -> _Row:
    """Make the place of one demonstration chosen by hand."""
    with gr.Row(visible=False, elem_classes="lp-moves") as row:
        card = gr.HTML(min_width=260)
        earlier = gr.Button("earlier", size="sm", scale=0, min_width=84, interactive=place > 0)
        later = gr.Button("later", size="sm", scale=0, min_width=84)
        remove = gr.Button("remove", size="sm", scale=0, min_width=84)
    return _Row((row, card, later), (earlier, later, remove))


def _changes(actions: Actions, place: int) -> tuple[Change, Change, Change]:
    """Return the functions of a place's buttons: earlier, later, remove."""
    return (
        lambda numbers, found: actions.held(actions.moved(numbers, place, -1), found),
        lambda numbers, found: actions.held(actions.moved(numbers, place, 1), found),
        lambda numbers, found: actions.held(actions.removed(numbers, place), found),
    )


def _intro(play: Playground) -> str:
    facts = f"{play.world.name}. Each method shows up to {play.shots} demonstrations."
    return (
        '<div class="lp-intro"><h1>Lever-Plus</h1><p>A frozen vision-language model answers a '
        "question about an image better or worse depending on which worked examples "
        "(demonstrations) it is shown first. Pick a question, and see what each method shows the "
        "model and what the model then answers.</p>"
        f'<p class="lp-note">{escape(facts)}</p></div>'
    )


def _small(path: str) -> Any:
    image = open_image(path)
    image.thumbnail((PICTURE, PICTURE))
    return image
