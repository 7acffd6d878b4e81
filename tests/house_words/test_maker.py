"""The embedded data set: it is deterministic, without leaks, and each word is one token."""

import hashlib
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lever_plus.errors import UserError
from lever_plus.house_words.cards import Card, draw_card, render, scans
from lever_plus.house_words.maker import (
    SCAN_SHARES,
    draw_meaning,
    human_answers,
    make_embedded,
    read_latent,
    read_twins,
    split_scans,
)
from lever_plus.house_words.words import (
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    VALUES,
)
from lever_plus.metric.vqa import vqa_accuracy
from tiny_world import World


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tmp_path: Path) -> None:
    sizes = {"train": 4, "dev": 2, "test": 2}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_embedded(tmp_path / name, tmp_path / name / "images", sizes, 0.4, 64, seed)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")
    assert tree_hash(tmp_path / "a") != tree_hash(tmp_path / "c")


def test_no_scan_is_in_two_splits_and_all_are_used() -> None:
    parts = split_scans()
    for first, second in combinations(parts.values(), 2):
        assert not set(first) & set(second)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1797))
    assert set(parts) == set(SCAN_SHARES)


def test_there_are_24_and_16_house_words_all_distinct() -> None:
    attributes = [word for words in HOUSE_ATTRIBUTES.values() for word in words]
    styles = [word for words in HOUSE_STYLES.values() for word in words]
    assert (len(attributes), len(styles)) == (24, 16)
    assert len({*attributes, *styles}) == 40


@pytest.mark.parametrize("attribute", VALUES)
def test_every_language_names_every_value(attribute: str) -> None:
    sizes = {len(VALUES[attribute][language]) for language in LANGUAGES}
    assert len(sizes) == 1
    assert all(
        len(set(words)) == len(words) and all(" " not in word for word in words)
        for words in VALUES[attribute].values()
    )


def test_a_word_is_plain_with_the_given_share_each_half_on_its_own() -> None:
    rng = np.random.default_rng(0)
    meanings = [draw_meaning(rng, 0.25) for _ in range(4000)]
    needs = Counter(m.needs for m in meanings)
    expected = {(): 1, ("attribute",): 3, ("language",): 3, ("attribute", "language"): 9}
    for halves, parts in expected.items():
        assert needs[halves] / 4000 == pytest.approx(parts / 16, abs=0.03)
    assert needs["attribute", "language"] == sum(m.in_house_words for m in meanings)


def test_human_answers_make_the_accuracy_soft() -> None:
    rng = np.random.default_rng(0)
    card, seen = Card(scan=0, digit=7, ink=1, pattern=2, corner=3), Counter[float]()
    for _ in range(300):
        meaning = draw_meaning(rng, 0.4)
        answers = human_answers(rng, meaning, card)
        assert len(answers) == 10
        assert vqa_accuracy(meaning.answer(card), answers) == 1.0
        english = VALUES[meaning.attribute]["english"][card.value(meaning.attribute)]
        if meaning.language != "english" and english != meaning.answer(card):
            seen[round(vqa_accuracy(english, answers), 1)] += 1
    assert {0.6, 0.9} <= set(seen)


def test_a_card_shows_its_digit_in_its_corner_in_its_ink() -> None:
    rng = np.random.default_rng(0)
    scan_ids = np.arange(len(scans()[0]))
    for _ in range(20):
        card = draw_card(rng, scan_ids)
        pixels = np.asarray(render(card, 64, rng), dtype=float)
        light = pixels.mean(-1)
        quadrants = [light[r : r + 32, c : c + 32].min() for r in (0, 32) for c in (0, 32)]
        assert int(np.argmin(quadrants)) == card.corner


def test_the_files_say_what_the_hidden_meanings_say(world: World) -> None:
    found, twins = read_latent(world.folder), read_twins(world.folder)
    assert found.keys() == world.examples.keys()
    for example in world.examples.values():
        latent = found[example.question_id]
        house = {word for words in HOUSE_ATTRIBUTES.values() for word in words}
        styles = {word for words in HOUSE_STYLES.values() for word in words}
        asked = set(re.findall(r"\w+", example.question))
        assert example.answer == latent.answer(latent.attribute, latent.language)
        assert {latent.attribute_word, latent.style_word} <= asked
        assert latent.needs == tuple(
            half for half, words in (("attribute", house), ("language", styles)) if asked & words
        )
        assert twins[example.question_id] == (latent.attribute, latent.language)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"needs": ["attribute"]}, "1000000: needs does not name the halves that are house words"),
        ({"needs": []}, "needs does not name"),
        ({"style_word": "German"}, "needs does not name"),
        (
            {"style_word": "bosk"},
            "1000000: attribute, language and their words do not fit together",
        ),
        ({"attribute": "digit"}, "attribute, language and their words do not fit together"),
        ({"language": "latin"}, "attribute, language and their words do not fit together"),
        ({"values": {"digit": 1, "ink": 1}}, "1000000: values does not say what a card shows"),
        ({"values": {"digit": 1, "ink": 6, "pattern": 0, "corner": 0}}, "values does not say"),
        ({"values": {"digit": 1, "ink": "1", "pattern": 0, "corner": 0}}, "values.ink: input"),
        ({"attribute": None}, "1000000.attribute: input should be a valid string"),
    ],
)
def test_what_a_question_hides_is_read_strictly(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    latent = {
        **{"attribute": "ink", "language": "german"},
        **{"attribute_word": "fennow", "style_word": "norvic", "needs": ["attribute", "language"]},
        "values": {"digit": 9, "ink": 5, "pattern": 4, "corner": 3},
    }
    path = tmp_path / "latent.json"
    path.write_text(json.dumps({"1000000": latent}))
    assert read_latent(tmp_path)[1000000].answer("ink", "german") == "schwarz"
    path.write_text(json.dumps({"1000000": {**latent, **change}}))
    with pytest.raises(UserError, match=re.escape(message)):
        read_latent(tmp_path)


def test_nothing_but_latent_json_holds_the_meaning(world: World) -> None:
    allowed = {
        "questions": {"question_id", "image_id", "question"},
        "annotations": {"question_id", "image_id", "answers"},
    }
    for path in set(world.folder.glob("*.json")) - {world.folder / "latent.json"}:
        ((kind, rows),) = json.loads(path.read_text(encoding="utf-8")).items()
        assert all(set(row) == allowed[kind] for row in rows)
