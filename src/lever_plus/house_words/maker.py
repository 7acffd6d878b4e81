"""Makes the embedded data set: renders cards, and writes questions about them in VQAv2 format.

All other code reads these files in the same way as VQAv2's. The hidden meaning of each question
(its attribute and language, what only a demonstration can explain, what the card shows) is written
to `latent.json`. Only the option for scarce pools, the in-context table and the ideal reader read
it; no policy, VLM or encoder ever sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from tqdm import tqdm

from lever_plus.errors import UserError
from lever_plus.files.checking import Row
from lever_plus.files.json_files import read_json_as
from lever_plus.files.writing import write_json
from lever_plus.house_words.cards import Card, draw_card, render, scans
from lever_plus.house_words.words import (
    ATTRIBUTES,
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    PHRASINGS,
    VALUES,
    plain_style,
)

HUMANS: Final = 10
"""Human answers per question."""
LATENT: Final = "latent.json"
IMAGE_NAME: Final = "{image_id:012d}.png"
SLIP_RATE: Final = 0.3
"""Share of questions for which one person gives a random answer."""
SCAN_SHARES: Final = {"train": 0.6, "dev": 0.1, "test": 0.3}
"""Share of the 1,797 scans that each split uses; no scan is in two splits."""
SCAN_SEED: Final = 1
HALVES: Final = ("attribute", "language")
"""The halves of a meaning; the question has one word for each."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a question really asks: one of ATTRIBUTES, one of LANGUAGES, and its words for them."""

    attribute: str
    language: str
    attribute_word: str
    style_word: str

    def question(self, phrasing: str) -> str:
        """Return the question in one of PHRASINGS."""
        return phrasing.format(attribute=self.attribute_word, style=self.style_word)

    @property
    def needs(self) -> tuple[str, ...]:
        """The halves whose word is a house word, which only demonstrations can explain."""
        plain = (self.attribute, plain_style(self.language))
        words = (self.attribute_word, self.style_word)
        return tuple(half for half, a, b in zip(HALVES, words, plain, strict=True) if a != b)

    @property
    def in_house_words(self) -> bool:
        """Whether both words are house words."""
        return self.needs == HALVES

    def answer(self, card: Card) -> str:
        """Return the one-word answer for a card."""
        return VALUES[self.attribute][self.language][card.value(self.attribute)]


class Latent(Row):
    """The hidden meaning of a question: its entry in `latent.json`.

    Attributes:
        attribute: What is asked about, one of ATTRIBUTES.
        language: The language of the answer, one of LANGUAGES.
        attribute_word: The question's word for the attribute.
        style_word: The question's word for the language.
        needs: The HALVES that only demonstrations can explain, see `Meaning.needs`.
        values: What the card shows: `{attribute: index in VALUES[attribute][language]}`.
    """

    attribute: str
    language: str
    attribute_word: str
    style_word: str
    needs: tuple[str, ...]
    values: dict[str, int]

    @model_validator(mode="after")
    def _true(self) -> "Latent":
        attributes = (self.attribute, *HOUSE_ATTRIBUTES.get(self.attribute, ()))
        styles = (plain_style(self.language), *HOUSE_STYLES.get(self.language, ()))
        known = self.attribute in ATTRIBUTES and self.language in LANGUAGES
        if not (known and self.attribute_word in attributes and self.style_word in styles):
            raise ValueError("attribute, language and their words do not fit together")
        if self.needs != self.meaning.needs:
            raise ValueError("needs does not name the halves that are house words")
        sizes = {attribute: len(VALUES[attribute][self.language]) for attribute in ATTRIBUTES}
        shown = self.values.keys() == sizes.keys()
        if not (shown and all(0 <= self.values[a] < size for a, size in sizes.items())):
            raise ValueError("values does not say what a card shows")
        return self

    @property
    def meaning(self) -> Meaning:
        """The question's meaning, without the card."""
        return Meaning(self.attribute, self.language, self.attribute_word, self.style_word)

    @property
    def key(self) -> tuple[str, str]:
        """Attribute and language; questions with the same key are twins, whatever their words."""
        return self.attribute, self.language

    def answer(self, attribute: str, language: str) -> str:
        """Return the word of a language for the card's value of an attribute."""
        return VALUES[attribute][language][self.values[attribute]]


def split_scans() -> dict[str, NDArray[np.int64]]:
    """Return {split: rows of its scans}, without overlap.

    The division is always the same, as the shipped models were trained on the training scans.
    """
    order = np.random.default_rng([SCAN_SEED, 0]).permutation(len(scans()[1]))
    ends = np.cumsum([round(share * len(order)) for share in SCAN_SHARES.values()])[:-1]
    return dict(zip(SCAN_SHARES, np.split(order, ends), strict=True))


def draw_meaning(rng: np.random.Generator, plain_share: float) -> Meaning:
    """Draw an attribute and a language, and a word for each, plain with chance `plain_share`."""
    attribute, language = str(rng.choice(ATTRIBUTES)), str(rng.choice(LANGUAGES))
    return word_meaning(rng, attribute, language, plain_share)


def word_meaning(
    rng: np.random.Generator,
    attribute: str,
    language: str,
    plain_share: float,
) -> Meaning:
    """Draw the words for a given attribute and language, plain with chance `plain_share`."""
    plain_attribute, plain_language = rng.random(2) < plain_share
    return Meaning(
        attribute=attribute,
        language=language,
        attribute_word=attribute
        if plain_attribute
        else str(rng.choice(HOUSE_ATTRIBUTES[attribute])),
        style_word=plain_style(language)
        if plain_language
        else str(rng.choice(HOUSE_STYLES[language])),
    )


def human_answers(rng: np.random.Generator, meaning: Meaning, card: Card) -> list[str]:
    """Return 10 answers: 2 or 3 people answer in plain English, and sometimes one at random.

    So the VQA accuracy has steps: 1 for the majority's word, 0.6 or 0.9 for the English word,
    0.3 for a random answer, 0 for any other.
    """
    answers = [meaning.answer(card)] * HUMANS
    english = VALUES[meaning.attribute]["english"]
    for i in range(int(rng.integers(2, 4))):
        answers[i] = english[card.value(meaning.attribute)]
    if rng.random() < SLIP_RATE:
        answers[-1] = str(rng.choice(VALUES[meaning.attribute][meaning.language]))
    return [answers[i] for i in rng.permutation(HUMANS)]


def make_embedded(
    folder: Path,
    images: Path,
    sizes: Mapping[str, int],
    plain_share: float,
    image_size: int,
    seed: int,
) -> None:
    """Write the embedded data set.

    Args:
        folder: Folder for `questions_<split>.json`, `annotations_<split>.json` and `latent.json`.
        images: Folder for the images, `<split>/*.png`.
        sizes: {split: number of questions}.
        plain_share: Probability of a plain word, for the attribute and the language separately.
        image_size: Width and height of the images, in pixels.
        seed: Seed of all draws; equal seeds give the same bytes.
    """
    latent: dict[str, dict[str, Any]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    scan_ids = split_scans()
    for number, (split, size) in enumerate(sizes.items(), start=1):
        rng = np.random.default_rng([seed, number])
        (images / split).mkdir(parents=True, exist_ok=True)
        questions, annotations = [], []
        for index in tqdm(range(size), desc=f"{split} cards", disable=None):
            item_id = number * 1_000_000 + index
            card, meaning = draw_card(rng, scan_ids[split]), draw_meaning(rng, plain_share)
            image = render(card, image_size, rng)
            image.save(image_file(images, split, item_id), compress_level=1)
            ids = {"question_id": item_id, "image_id": item_id}
            questions.append({**ids, "question": meaning.question(str(rng.choice(PHRASINGS)))})
            annotations.append({**ids, "answers": _answer_rows(human_answers(rng, meaning, card))})
            values = {attribute: card.value(attribute) for attribute in ATTRIBUTES}
            latent[str(item_id)] = {**asdict(meaning), "needs": meaning.needs, "values": values}
        files = {"questions": questions, "annotations": annotations}
        for key, rows in files.items():
            write_json(folder / f"{key}_{split}.json", {key: rows}, indent=None)
    write_json(folder / LATENT, latent, indent=None)


def image_file(images: Path, split: str, image_id: int) -> Path:
    """Return the path of an image."""
    return images / split / IMAGE_NAME.format(image_id=image_id)


def read_latent(folder: Path) -> dict[int, Latent]:
    """Return the hidden meanings in `latent.json`, by question id; UserError if it is damaged."""
    path, advice = folder / LATENT, "run `dvc repro prepare`"
    found = read_json_as(dict[str, Latent], path, advice)
    for i in found:
        if not (i.isascii() and i.isdecimal() and len(i) < 20):
            raise UserError(f"{path}: {i[:20]!r} is not a question id: {advice}.")
    return {int(i): latent for i, latent in found.items()}


def read_meanings(folder: Path) -> dict[int, Meaning]:
    """Return what each question really asks, by question id."""
    return {i: latent.meaning for i, latent in read_latent(folder).items()}


def read_twins(folder: Path) -> dict[int, tuple[str, ...]]:
    """Return {question id: (attribute, language)}; questions with equal values are twins."""
    return {i: latent.key for i, latent in read_latent(folder).items()}


def _answer_rows(answers: Sequence[str]) -> list[dict[str, Any]]:
    return [{"answer_id": i, "answer": answer} for i, answer in enumerate(answers, start=1)]
