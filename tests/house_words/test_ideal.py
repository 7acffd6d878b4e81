"""The ideal reader, checked by enumerating pointers, by a reader of texts, and by hand."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations, permutations, product

import numpy as np
import pytest

from lever_plus.data.examples import Example
from lever_plus.house_words.cards import Card
from lever_plus.house_words.ideal import IdealReader
from lever_plus.house_words.maker import Latent, human_answers, word_meaning
from lever_plus.house_words.words import (
    ATTRIBUTES,
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    PHRASINGS,
    VALUES,
)
from lever_plus.metric.vqa import vqa_accuracy

QUERY, POOL, MOST = 0, (1, 2, 3, 4, 5, 6), 4


class Made:
    """A query and a pool, with their hidden meanings and as examples."""

    def __init__(self, meanings: Sequence[tuple[str, str, float]], seed: int) -> None:
        """Draw words and cards.

        Args:
            meanings: Attribute, language and share of plain words of the query and of the pool.
            seed: Of words, cards and answers.
        """
        rng = np.random.default_rng([seed, 1])
        self.hidden: dict[int, Latent] = {}
        self.examples: dict[int, Example] = {}
        for number, (attribute, language, plain) in enumerate(meanings):
            meaning = word_meaning(rng, attribute, language, plain)
            self.add(number, rng, Latent(**asdict(meaning), needs=meaning.needs, values=_card(rng)))
        self.reader = IdealReader(self.hidden, self.examples)

    def add(self, number: int, rng: np.random.Generator, latent: Latent) -> None:
        self.hidden[number] = latent
        answers = tuple(human_answers(rng, latent.meaning, Card(scan=0, **latent.values)))
        question = latent.meaning.question(str(rng.choice(PHRASINGS)))
        answer = latent.answer(latent.attribute, latent.language)
        self.examples[number] = Example("x.png", question, answer, answers, number, number)


def _card(rng: np.random.Generator) -> dict[str, int]:
    """Draw values; no digit above 5, because "six" is both English and French."""
    return {a: int(rng.integers(min(6, len(VALUES[a]["english"])))) for a in ATTRIBUTES}


def drawn(seed: int) -> Made:
    """Draw a small world of two to four meanings of each half, mostly in house words."""
    rng = np.random.default_rng(seed)
    count = 2 + seed % 3
    attributes, languages = rng.permutation(ATTRIBUTES)[:count], rng.permutation(LANGUAGES)[:count]
    return Made(
        [
            (str(rng.choice(attributes)), str(rng.choice(languages)), float(rng.choice([0.1, 0.5])))
            for _ in (QUERY, *POOL)
        ],
        seed,
    )


MEANING = {
    word: meaning
    for table in (HOUSE_ATTRIBUTES, HOUSE_STYLES)
    for meaning, words in table.items()
    for word in words
}


def words_of(example: Example) -> tuple[str, str]:
    """Return the question's word for the attribute and that for the language."""
    found = re.findall(r"\w+", example.question)
    plain = {language.capitalize() for language in LANGUAGES}
    attribute = next(w for w in found if w in ATTRIBUTES or MEANING.get(w) in ATTRIBUTES)
    style = next(w for w in found if w in plain or MEANING.get(w) in LANGUAGES)
    return attribute, style


def read(made: Made, shown: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the attributes and the languages that a reader of the questions' texts believes in."""
    asked = words_of(made.examples[QUERY])
    told = [words_of(made.examples[i]) for i in shown]
    found = []
    for half, meanings in enumerate((ATTRIBUTES, LANGUAGES)):
        if asked[half] not in MEANING:
            found.append([asked[half].lower()])
            continue
        votes = [MEANING[words[half]] for words in told if words[half] in MEANING]
        counts = {meaning: votes.count(meaning) for meaning in meanings}
        found.append([m for m, count in counts.items() if count == max(counts.values())])
    return found[0], found[1]


def formula_accuracy(made: Made, shown: Sequence[int]) -> float:
    """Return the mean accuracy of a VLM that answers by `read`, over all that it could guess."""
    values, answers = made.hidden[QUERY].values, made.examples[QUERY].answers
    scores = [
        vqa_accuracy(VALUES[attribute][language][values[attribute]], answers)
        for attribute, language in product(*read(made, shown))
    ]
    return float(np.mean(scores))


def pointers(size: int) -> Iterator[tuple[int, ...]]:
    return permutations(POOL, size)


@pytest.mark.parametrize("seed", range(40))
def test_a_vlm_that_follows_the_rule_has_exactly_the_accuracy(seed: int) -> None:
    made = drawn(seed)
    for shown in [(), *pointers(1), *pointers(2), *combinations(POOL, 3), *combinations(POOL, 4)]:
        expected = pytest.approx(formula_accuracy(made, shown))
        assert made.reader.accuracy(QUERY, shown) == expected, shown


@pytest.mark.parametrize("part", range(4))
def test_the_number_needed_is_the_shortest_pointer_that_leaves_nothing_to_guess(part: int) -> None:
    counts = set()
    for seed in range(part, 400, 4):
        made = drawn(seed)
        hidden = made.hidden[QUERY]
        truth = ([hidden.attribute], [hidden.language])
        sure = [
            size
            for size in range(MOST + 1)
            if any(read(made, shown) == truth for shown in combinations(POOL, size))
        ]
        needed = made.reader.needed(QUERY, POOL, MOST)
        assert needed == (sure[0] if sure else None), seed
        best = {
            size: max(made.reader.accuracy(QUERY, shown) for shown in combinations(POOL, size))
            for size in range(MOST + 1)
        }
        assert next((size for size in best if best[size] == 1), None) == needed, seed
        counts.add(needed)
    assert counts >= {0, 1, 2, 3, None}


def by_hand(*questions: str) -> Made:
    """Make the query and the pool from texts such as "INK german": capitals are house words."""
    made, rng = Made([], 0), np.random.default_rng(0)
    for number, text in enumerate(questions):
        attribute, language = text.split()
        latent = Latent(
            attribute=attribute.lower(),
            language=language.lower(),
            attribute_word=HOUSE_ATTRIBUTES[attribute.lower()][number % 4]
            if attribute.isupper()
            else attribute,
            style_word=HOUSE_STYLES[language.lower()][number % 4]
            if language.isupper()
            else language.capitalize(),
            needs=tuple(
                half
                for half, word in (("attribute", attribute), ("language", language))
                if word.isupper()
            ),
            values={"digit": 7, "ink": 1, "pattern": 2, "corner": 3},
        )
        made.add(number, rng, latent)
    return made


@pytest.mark.parametrize(
    ("questions", "needed"),
    [
        ("ink german, INK GERMAN", 0),
        ("INK german, ink german", None),
        ("INK german, DIGIT german, INK french", 1),
        ("INK GERMAN, INK german, INK french", None),
        ("INK GERMAN, INK french, ink GERMAN", 2),
        ("INK GERMAN, INK FRENCH, ink GERMAN", None),  # tied between two languages
        ("INK GERMAN, INK FRENCH, ink GERMAN, digit GERMAN", 3),  # outvoted
        ("INK GERMAN, INK FRENCH, INK ENGLISH, DIGIT GERMAN, CORNER GERMAN", 4),
        ("INK GERMAN, INK FRENCH, INK FRENCH, DIGIT GERMAN, CORNER GERMAN", None),
        ("INK GERMAN, INK GERMAN, INK french, ink GERMAN", 1),
    ],
)
def test_what_is_needed_by_hand(questions: str, needed: int | None) -> None:
    made = by_hand(*questions.split(", "))
    pool = [i for i in made.hidden if i != QUERY]
    assert made.reader.needed(QUERY, pool, MOST) == needed
    assert made.reader.needed(QUERY, pool, (needed or 0) - 1) is None


@pytest.mark.parametrize(
    ("questions", "kinds"),
    [
        ("ink german, INK GERMAN, DIGIT FRENCH", "idle idle"),
        ("INK german, INK french, INK german, digit GERMAN", "complement duplicate idle"),
        ("INK german, DIGIT german, INK german", "harmful complement"),
        ("INK german, INK FRENCH, DIGIT german", "complement harmful"),  # it needs no language
        ("INK GERMAN, INK german, ink GERMAN, INK GERMAN", "complement complement duplicate"),
        ("INK GERMAN, INK german, INK GERMAN, ink GERMAN", "complement complement duplicate"),
        ("INK GERMAN, INK FRENCH, INK german, ink GERMAN", "harmful duplicate complement"),
        ("INK GERMAN, INK GERMAN, DIGIT FRENCH, digit french", "complement harmful idle"),
    ],
)
def test_kinds_of_picks_by_hand(questions: str, kinds: str) -> None:
    made = by_hand(*questions.split(", "))
    pointer = [i for i in made.hidden if i != QUERY]
    found = made.reader.kinds(QUERY, pointer)
    assert found == tuple(kinds.split())
    for size in range(len(pointer)):  # what comes later does not change it
        assert made.reader.kinds(QUERY, pointer[:size]) == found[:size]


def test_an_accuracy_by_hand_knows_what_the_english_word_is_worth() -> None:
    made = by_hand("ink GERMAN", "INK german", "digit GERMAN", "digit FRENCH", "digit ENGLISH")
    english = vqa_accuracy("blue", made.examples[QUERY].answers)
    assert english in (pytest.approx(0.6), pytest.approx(0.9))
    accuracy = made.reader.accuracy
    assert accuracy(QUERY, ()) == accuracy(QUERY, (1,)) == pytest.approx((1 + english) / 4)
    assert accuracy(QUERY, (2,)) == 1
    assert accuracy(QUERY, (3,)) == 0
    assert accuracy(QUERY, (2, 3)) == accuracy(QUERY, (3, 2)) == 0.5
    assert accuracy(QUERY, (4, 1)) == pytest.approx(english)
