"""The functions of a task show what the selector chooses, as this project's own prompts do.

`tests/hosts/lmms_eval` runs them in the real lmms-eval, in an environment of its own.
"""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageFile

from hosts.conftest import Asked
from lever_plus.data.images import open_image
from lever_plus.hosts.lmms_eval import (
    SelectionError,
    doc_to_messages,
    doc_to_text,
    doc_to_visual,
    process_results,
)
from lever_plus.vlm.prompt import PromptFormat, messages
from trained_selector import SHOTS, written_pool


@pytest.fixture
def settings(checkpoint: Path, asked: Asked, tmp_path: Path) -> dict[str, Any]:
    pool = written_pool(tmp_path / "pool.jsonl", asked.pool)
    return {"checkpoint": str(checkpoint), "pool": str(pool), "shots": SHOTS}


def texts(turns: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(t["role"], [part.get("text", "<image>") for part in t["content"]]) for t in turns]


def expected(asked: Asked, place: int, prompt: PromptFormat = PromptFormat()) -> list[Any]:  # noqa: B008
    return texts(messages(asked.chosen[place], asked.queries[place], prompt))


def test_200_unseen_questions_get_the_demonstrations_of_the_selector(
    settings: dict[str, Any], asked: Asked
) -> None:
    found = [
        texts(doc_to_messages({"image": query.image, "question": query.question}, settings))
        for query in asked.queries
    ]
    assert found == [expected(asked, place) for place in range(len(asked.queries))]
    assert len({str(turns[:4]) for turns in found}) > 20


def test_images_are_those_of_the_demonstrations_and_of_the_question(
    settings: dict[str, Any], asked: Asked
) -> None:
    query, chosen = asked.queries[0], asked.chosen[0]
    shown = doc_to_visual({"image": query.image, "question": query.question}, settings)
    wanted = [open_image(each.image) for each in (*chosen, query)]
    assert len(shown) == SHOTS + 1
    for found, image in zip(shown, wanted, strict=True):
        assert not ImageChops.difference(found, image).getbbox()


def test_an_image_may_be_a_picture_bytes_or_a_path(settings: dict[str, Any], asked: Asked) -> None:
    query = asked.queries[0]
    content = Path(query.image).read_bytes()
    for image in (
        Image.open(query.image),
        {"bytes": content, "path": None},
        {"bytes": None, "path": query.image},
        content,
    ):
        doc = {"photo": image, "asked": query.question}
        found = doc_to_messages(doc, {**settings, "image": "photo", "question": "asked"})
        assert texts(found) == expected(asked, 0)


def test_settings_choose_what_is_shown(settings: dict[str, Any], asked: Asked) -> None:
    query, pool = asked.queries[0], asked.pool
    doc = {"image": query.image, "question": query.question}
    assert texts(doc_to_messages(doc, {"shots": 0})) == texts(messages((), query))
    fixed = {name: value for name, value in settings.items() if name != "checkpoint"}
    assert texts(doc_to_messages(doc, fixed)) == texts(messages(pool[:SHOTS], query))
    told = {**settings, "instruction": "In one word."}
    assert texts(doc_to_messages(doc, told)) == expected(
        asked, 0, PromptFormat(instruction="In one word.")
    )
    # What lmms-eval hands over: the settings of this model, and the table of all.
    assert texts(doc_to_messages(doc, {"default": settings, **settings})) == expected(asked, 0)
    assert doc_to_text(doc, settings).count("<image>") == SHOTS + 1


def test_accuracy_is_the_official_one() -> None:
    doc = {"answers": ["red"] * 2 + ["blue"] * 8}
    assert process_results(doc, ["Red."]) == {"vqa_accuracy": pytest.approx(0.6)}
    assert process_results(doc, []) == {"vqa_accuracy": 0.0}
    with pytest.raises(SelectionError, match="has no field 'answers', only image"):
        process_results({"image": "a.png"}, ["red"])
    with pytest.raises(SelectionError, match="has no answers: the accuracy needs the human"):
        process_results({"answers": []}, ["red"])


def test_images_are_opened_whole_whatever_lmms_eval_has_set(
    settings: dict[str, Any], asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes Pillow fill up damaged images for its whole process; here they are refused."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    query = asked.queries[0]
    doc = {"image": query.image, "question": query.question}
    assert texts(doc_to_messages(doc, settings)) == expected(asked, 0)
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(query.image).read_bytes()[:-30])
    with pytest.raises(SelectionError, match="cut.png cannot be read: it is cut off"):
        doc_to_messages({**doc, "image": str(cut)}, settings)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    ("doc", "changed", "said"),
    [
        ({"question": "What?"}, {}, "has no field 'image', only question"),
        ({"image": "gone.png", "question": "What?"}, {}, "image gone.png cannot be read"),
        ({"image": 7, "question": "What?"}, {}, "7 is not an image"),
        ({"image": None, "question": "What?"}, {}, '"image" is missing'),
        ({"question": 5}, {}, '"question" is missing or is not a string'),
        ({"question": "<image>"}, {}, "VLMs read as a special token"),
        (
            {"question": "What?"},
            {"shots": 3},
            "can pick 1 to 2 demonstrations, but 3 were asked for",
        ),
        ({"question": "What?"}, {"shots": -1}, "shots: input should be greater than or equal"),
        ({"question": "What?"}, {"pool": None}, "asks for 2 demonstrations, but names no pool"),
        ({"question": "What?"}, {"pool": "gone.jsonl"}, "gone.jsonl"),
        ({"question": "What?"}, {"pols": "x"}, "unknown key pols"),
        ({"question": "What?"}, {"checkpoint": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_a_value_error_with_our_sentence(
    doc: dict[str, Any], changed: dict[str, Any], said: str, settings: dict[str, Any], asked: Asked
) -> None:
    whole = doc if "has no field" in said else {"image": asked.queries[0].image, **doc}
    with pytest.raises(ValueError, match=said):
        doc_to_messages(whole, {**settings, **changed})
