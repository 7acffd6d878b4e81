"""Maker of the embedded data set: renders cards and asks about them, into files in VQAv2 format.

Everything after the maker reads these files with the same code as VQAv2. What each question hides
(attribute, language, what only a demonstration can explain, what the card shows) goes into
`latent.json`, which only the scarcity option, the in-context table and the ideal reader read; no
policy, VLM or encoder ever sees it.
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
LATENT: Final = "latent.json"
IMAGE_NAME: Final = "{image_id:012d}.png"
SLIP_RATE: Final = 0.3
SCAN_SHARES: Final = {"train": 0.6, "dev": 0.1, "test": 0.3}
"""Share of the 1,797 scans that each split may show; no scan is in two splits."""
SCAN_SEED: Final = 1
HALVES: Final = ("attribute", "language")
"""The halves of a meaning: each has a word of its own in the question."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a question really asks: one of ATTRIBUTES, one of LANGUAGES, and how it is worded."""

    attribute: str
    language: str
    attribute_word: str
    style_word: str

    def question(self, phrasing: str) -> str:
        """Return the question in one of PHRASINGS."""
        return phrasing.format(attribute=self.attribute_word, style=self.style_word)

    @property
    def needs(self) -> tuple[str, ...]:
        """The HALVES whose word is a house word, so that only demonstrations can explain them."""
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
    """What a question hides: its entry in `latent.json`.

    Attributes:
        attribute: See `Meaning`, as the next three.
        language: In which it is answered.
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
            raise ValueError("it is no question with a known meaning")
        if self.needs != self.meaning.needs:
            raise ValueError("needs does not name the halves that are house words")
        sizes = {attribute: len(VALUES[attribute][self.language]) for attribute in ATTRIBUTES}
        shown = self.values.keys() == sizes.keys()
        if not (shown and all(0 <= self.values[a] < size for a, size in sizes.items())):
            raise ValueError("values does not say what a card shows")
        return self

    @property
    def meaning(self) -> Meaning:
        """What the question asks."""
        return Meaning(self.attribute, self.language, self.attribute_word, self.style_word)

    @property
    def key(self) -> tuple[str, str]:
        """Attribute and language: questions that share both are twins, however they are worded."""
        return self.attribute, self.language

    def answer(self, attribute: str, language: str) -> str:
        """Return what the card's value of an attribute is called in a language."""
        return VALUES[attribute][language][self.values[attribute]]


def split_scans() -> dict[str, NDArray[np.int64]]:
    """Divide the scans' row numbers among the splits, without overlap.

    Always in the same way: the shipped models have seen the training scans, and no others.
    """
    order = np.random.default_rng([SCAN_SEED, 0]).permutation(len(scans()[1]))
    ends = np.cumsum([round(share * len(order)) for share in SCAN_SHARES.values()])[:-1]
    return dict(zip(SCAN_SHARES, np.split(order, ends), strict=True))


def draw_meaning(rng: np.random.Generator, plain_share: float) -> Meaning:
    """Draw an attribute, a language and a word for each: plain with probability `plain_share`."""
    attribute, language = str(rng.choice(ATTRIBUTES)), str(rng.choice(LANGUAGES))
    return word_meaning(rng, attribute, language, plain_share)


def word_meaning(
    rng: np.random.Generator,
    attribute: str,
    language: str,
    plain_share: float,
) -> Meaning:
    """Draw the words for a given attribute and language."""
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
    """Return 10 answers: 2-3 people answer in plain English, sometimes one slips.

    So the official accuracy is soft: 1 for the majority's word, .6 or .9 for the English word, .3
    for the slip, 0 for anything else.
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
        folder: Gets `questions_<split>.json`, `annotations_<split>.json` and `latent.json`.
        images: Gets `<split>/*.png`.
        sizes: Number of items of each split.
        plain_share: Probability of a plain word, for the attribute and for the language each.
        image_size: Side of the square images, in pixels.
        seed: Equal seeds give equal bytes.
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
    """Return where the maker puts an image."""
    return images / split / IMAGE_NAME.format(image_id=image_id)


def read_latent(folder: Path) -> dict[int, Latent]:
    """Return what each question hides, by question id; UserError if the file is not the maker's."""
    path, advice = folder / LATENT, "run `dvc repro prepare`"
    found = read_json_as(dict[str, Latent], path, advice)
    for i in found:
        if not (i.isascii() and i.isdecimal() and len(i) < 20):
            raise UserError(f"{path}: {i[:20]!r} is no question's id: {advice}.")
    return {int(i): latent for i, latent in found.items()}


def read_meanings(folder: Path) -> dict[int, Meaning]:
    """Return what each question really asks, by question id."""
    return {i: latent.meaning for i, latent in read_latent(folder).items()}


def read_twins(folder: Path) -> dict[int, tuple[str, ...]]:
    """Return {question id: (attribute, language)}; equal values are exact twins."""
    return {i: latent.key for i, latent in read_latent(folder).items()}


def _answer_rows(answers: Sequence[str]) -> list[dict[str, Any]]:
    return [{"answer_id": i, "answer": answer} for i, answer in enumerate(answers, start=1)]
