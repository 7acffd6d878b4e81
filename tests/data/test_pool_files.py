"""A user's own pools: what is read, and one sentence for every damaged file."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from lever_plus.data.examples import LARGEST_ID, Example, write_examples
from lever_plus.data.pool_files import read_pool, read_vqa_pool
from lever_plus.errors import UserError
from pictures import draw

LINE = {"image": "a.png", "question": "q?", "answer": "red"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a pool file to write, beside three images, two of which are equal."""
    (tmp_path / "images").mkdir()
    for name, gray in (("a.png", 1), ("images/b.png", 1), ("c.png", 2)):
        draw(tmp_path / name, gray)
    return tmp_path / "pool.jsonl"


def write(path: Path, *lines: Mapping[str, object]) -> None:
    texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def test_lines_are_read_with_images_relative_to_the_file(path: Path) -> None:
    write(path, LINE, {**LINE, "image": "images/b.png", "answer": "blau ü"})
    assert read_pool(path) == read_pool(str(path))
    first, second = read_pool(path)
    hashes = sha256((path.parent / "a.png").read_bytes()).hexdigest()
    assert first == Example(
        str(path.parent / "a.png"), "q?", "red", question_id=1, image_id=1, image_sha256=hashes
    )
    assert (second.image, second.answer) == (str(path.parent / "images" / "b.png"), "blau ü")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pool.csv", "image,question,answer\na.png,q?,red\nc.png,p?,blue\n"),
        ("pool.json", '[["q?", "red", "a.png"], ["p?", "blue", "c.png"]]'),
    ],
)
def test_a_list_in_another_format_is_the_same_pool(path: Path, name: str, text: str) -> None:
    """Only the ids of questions differ: in CSV, lines are counted from the header."""
    write(path, LINE, {"image": "c.png", "question": "p?", "answer": "blue"})
    (path.parent / name).write_text(text)
    assert [replace(e, question_id=0) for e in read_pool(path.parent / name)] == [
        replace(e, question_id=0) for e in read_pool(path)
    ]


def test_examples_that_the_pipeline_wrote_are_a_pool(path: Path) -> None:
    """Their images are relative to the folder that the file is in; hashes are computed again."""
    write(path, {**LINE, "answers": ["red"] * 10, "question_id": 7, "image_id": 8})
    (example,) = read_pool(path)
    copy = path.with_name("copy.jsonl")
    write_examples(copy, [replace(example, image="a.png", image_sha256="0" * 64)])
    assert '"image_sha256": "000' in copy.read_text(encoding="utf-8")
    assert read_pool(copy) == [example]


def test_an_absolute_path_is_taken_as_it_is(path: Path) -> None:
    image = str(path.parent / "c.png")
    write(path, {**LINE, "image": image})
    assert read_pool(path)[0].image == image


def test_human_answers_show_their_most_frequent_unless_one_is_given(path: Path) -> None:
    answers = ["a", "b", "b"]
    asked = {"image": "a.png", "question": "q?", "answers": answers}
    write(path, asked, {**asked, "answer": "c"})
    first, second = read_pool(path)
    assert (first.answer, first.answers) == ("b", ("a", "b", "b"))
    assert (second.answer, second.answers) == ("c", ("a", "b", "b"))


def test_lines_and_images_without_ids_are_numbered(path: Path) -> None:
    """Lines are numbered by their place, images by their content, whatever file holds it."""
    names = ("a.png", "c.png", "images/b.png")
    write(path, *({**LINE, "image": name} for name in names))
    assert [(e.question_id, e.image_id) for e in read_pool(path)] == [(1, 1), (2, 2), (3, 1)]
    write(path, {**LINE, "question_id": 70, "image_id": 7}, {**LINE, "image": "c.png"})
    assert [(e.question_id, e.image_id) for e in read_pool(path)] == [(70, 7), (2, 8)]


def test_empty_lines_are_nothing_and_only_a_line_feed_ends_a_line(path: Path) -> None:
    """Questions may hold other line separators; Windows ends lines with two characters."""
    asked = "first\u2028second\x85third?"
    write(path, {**LINE, "question": asked})
    text = path.read_text(encoding="utf-8")
    path.write_bytes(("\n" + text + "\r\n" + text.rstrip("\n") + "\r\n").encode())
    found = read_pool(path)
    assert [e.question for e in found] == [asked] * 2
    assert [e.question_id for e in found] == [2, 4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON (Expecting property name"),
        ("[1]", "line 2: not an object with image, question and answer."),
        (
            {**LINE, "awnser": "x"},
            "line 2: unknown field awnser: the fields are answer, answers, image",
        ),
        ({"image": "a.png", "question": "q?"}, "line 2: answer is missing: add it."),
        ({**LINE, "answer": 7}, "line 2: answer is 7: write a text"),
        ({**LINE, "answer": " "}, "line 2: answer is ' ': write a text with visible characters"),
        ({**LINE, "answer": "\u200b"}, "line 2: answer is '\\u200b': write a text"),
        ({**LINE, "answer": "\u2800"}, "line 2: answer is '\u2800': write a text"),
        ({**LINE, "answer": "a\x9b"}, "line 2: answer is 'a\\x9b': write a text"),
        ({**LINE, "answer": "a\f"}, "line 2: answer is 'a\\x0c': write a text"),
        ({"image": "a.png", "question": "q?", "answers": ["", ""]}, "answers is '': write a text"),
        (
            {"image": "a.png", "question": "q?", "answers": ["\0"]},
            "answers is '\\x00': write a text with visible characters and no control characters.",
        ),
        ({"question": "q?", "answer": "red"}, "line 2: image is missing: add it."),
        ({**LINE, "question": ""}, "line 2: question is '': write a text"),
        ({**LINE, "answers": "red"}, "line 2: answers is not a list of texts."),
        ({**LINE, "answers": ["red", 1]}, "line 2: answers is not a list of texts."),
        ({**LINE, "question_id": "1"}, "line 2: question_id is '1', not a whole number from 0 up."),
        ({**LINE, "image_id": True}, "line 2: image_id is True, not a whole number from 0 up."),
        ({**LINE, "question_id": 1}, "question_id 1 occurs twice"),
        ({**LINE, "image": "d.png"}, "d.png is missing: write its path relative to"),
    ],
)
def test_a_damaged_line_is_named_with_its_file(
    path: Path, line: str | dict[str, object], message: str
) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(json.dumps(LINE) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}.*{re.escape(message)}"):
        read_pool(path)


def test_a_file_that_is_missing_empty_or_no_text_is_named(path: Path) -> None:
    with pytest.raises(UserError, match=r"pool\.jsonl is missing: name a file of JSON lines,"):
        read_pool(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"pool\.jsonl holds no example"):
        read_pool(path)
    path.write_bytes(b'{"image": "\xff"}\n')
    with pytest.raises(UserError, match=r"pool\.jsonl, line 1 is not UTF-8 \(byte 11\)"):
        read_pool(path)


def test_files_in_vqav2_format_are_a_pool_whatever_the_number_of_answers(path: Path) -> None:
    folder = path.parent
    ids = {"question_id": 5, "image_id": 3}
    answers = [{"answer": text} for text in ("red", "blue", "blue")]
    questions = {"questions": [{**ids, "question": "q?"}]}
    (folder / "q.json").write_text(json.dumps(questions))
    (folder / "a.json").write_text(json.dumps({"annotations": [{**ids, "answers": answers}]}))
    content = draw(folder / "images" / "000003.png")
    files = [str(folder / name) for name in ("q.json", "a.json", "images")]
    (example,) = read_vqa_pool(*files, "{image_id:06d}.png")
    assert (example.question_id, example.image_id, example.answer) == (5, 3, "blue")
    assert example.answers == ("red", "blue", "blue")
    assert example.image == str(folder / "images" / "000003.png")
    assert example.image_sha256 == sha256(content).hexdigest()
    with pytest.raises(UserError, match=r"images of .*q\.json are missing in .* \(first ids: 3\)"):
        read_vqa_pool(*files, "{image_id}.jpg")


def test_an_image_that_cannot_be_opened_is_named_with_its_line(path: Path) -> None:
    (path.parent / "c.png").write_bytes(b"")
    write(path, LINE, {**LINE, "image": "c.png"})
    with pytest.raises(UserError, match=r"pool\.jsonl, line 2: image .*c\.png cannot be read"):
        read_pool(path)


def test_an_image_without_an_id_beside_the_largest_one_gets_a_free_one(path: Path) -> None:
    draw(path.parent / "largest.png")
    draw(path.parent / "other.png", 9)
    lines = [
        {**LINE, "image": "largest.png", "image_id": LARGEST_ID},
        {**LINE, "image": "other.png"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert [e.image_id for e in read_pool(path)] == [LARGEST_ID, 1]
