"""A user's own lists: what is read from each format, and one sentence for every damaged row."""

import re
from pathlib import Path

import pytest

from lever_plus.data.examples import Example
from lever_plus.data.lists import read_list
from lever_plus.errors import UserError
from pictures import draw

HEAD = "question,answer,image\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images, in which lists are written."""
    for number in (1, 2):
        draw(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def read(folder: Path, name: str, text: str, image_name: str | None = None) -> dict[str, Example]:
    """Read a list; return its examples by place, without the folder."""
    path = folder / name
    path.write_bytes(text.encode())
    found = read_list(path, folder / "images", image_name)
    return {where.removeprefix(f"{folder}/"): example for where, example in found.items()}


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        (
            "list.jsonl",
            '["q?", "red", "1.png"]\n\n{"image": "2.png", "question": "p?", "answer": "blue"}\n',
            ["list.jsonl, line 1", "list.jsonl, line 3"],
        ),
        (
            "list.json",
            '[["q?", "red", "1.png"], {"image": "2.png", "question": "p?", "answer": "blue"}]',
            ["list.json, item 1", "list.json, item 2"],
        ),
        (
            "list.csv",
            "image,question,answer\n1.png,q?,red\n\n2.png,p?,blue\n",
            ["list.csv, line 2", "list.csv, line 4"],
        ),
        (
            "LIST.CSV",
            '\ufeffanswer, question, image\r\n"red","q?",1.png\r\nblue,p?,2.png\r\n',
            ["LIST.CSV, line 2", "LIST.CSV, line 3"],
        ),
    ],
)
def test_every_format_says_the_same_with_its_places(
    folder: Path, name: str, text: str, places: list[str]
) -> None:
    found = read(folder, name, text)
    assert list(found) == places
    said = [(e.question, e.answer, Path(e.image).name, e.answers) for e in found.values()]
    assert said == [("q?", "red", "1.png", ()), ("p?", "blue", "2.png", ())]
    numbers = [int(place.rpartition(" ")[2]) for place in places]
    assert [e.question_id for e in found.values()] == numbers


def test_a_cell_of_csv_may_hold_commas_quotes_and_lines(folder: Path) -> None:
    """The rows below it are numbered by their first lines."""
    text = HEAD + '"a ""b"",\nc?","1,000",1.png\nq?,red,2.png\n'
    found = read(folder, "list.csv", text)
    assert list(found) == ["list.csv, line 2", "list.csv, line 4"]
    first = found["list.csv, line 2"]
    assert (first.question, first.answer) == ('a "b",\nc?', "1,000")


def test_ids_are_numbers_in_csv_too(folder: Path) -> None:
    text = "question_id,image_id,question,answer,image\n70,7,q?,red,1.png\n"
    (found,) = read(folder, "list.csv", text).values()
    assert (found.question_id, found.image_id) == (70, 7)


@pytest.mark.parametrize(
    ("name", "text"),
    [("list.json", '[["q?", "red", 2]]'), ("list.csv", HEAD + "q?,red,2\n")],
)
def test_images_may_be_numbered(folder: Path, name: str, text: str) -> None:
    (found,) = read(folder, name, text, "{image_id}.png").values()
    assert found.image == str(folder / "images" / "2.png")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", HEAD, "holds no example"),
        ("list.csv", "", "holds no example"),
        ("list.csv", "question;answer;image\nq?;red;1.png\n", "line 2: unknown field question;ans"),
        ("list.csv", "question,image\nq?,1.png\n", "line 2: answer is missing: add it."),
        ("list.csv", HEAD + "q?,red,1.png\np?,,2.png\n", "line 3: answer is '': write a text"),
        ("list.csv", HEAD + "q?,1,000,1.png\n", "line 2: 4 cells, but there are 3 columns: put"),
        ("list.csv", HEAD + "q?,red\n", "line 2: 2 cells, but there are 3 columns"),
        ("list.csv", "image,image,answer\n", "line 1: two columns have the same name"),
        ("list.csv", HEAD + 'q?,"red,1.png\n', "line 2 is not valid CSV (unexpected end of data)"),
        ("list.csv", HEAD + 'q?,"red"x,1.png\n', "line 2 is not valid CSV ("),
        ("list.csv", "image_id," + HEAD + "1.0,q?,red,1.png\n", "line 2: image_id is '1.0', not a"),
        ("list.csv", "answers," + HEAD + "a,q?,red,1.png\n", "line 2: answers is not a list of"),
        ("list.json", '{"image": "1.png"}', "does not hold a list: name a file of JSON lines"),
        ("list.json", '["q?", "red", "1.png"]', "item 1: not an object with image"),
        ("list.json", '[["q?", "red"]]', "item 1: not an object with image, question"),
        ("list.json", '["q?", "red", 1]\n["p?"]', "is not valid JSON (Extra data: line"),
        ("list.jsonl", '["q?", 5, "1.png"]', "line 1: answer is 5: write a text"),
        (
            "list.json",
            '[["q?", "red", "3.png"]]',
            "images/3.png is missing: write its path relative to",
        ),
    ],
)
def test_a_damaged_row_is_named_with_its_file(
    folder: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(str(folder / name))}.*{re.escape(message)}"):
        read(folder, name, text)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("3", "images/3.png is missing"),
        ('"1.png"', "image is '1.png', not a whole number from 0 up."),
        ("-1", "image is -1, not a whole number from 0 up."),
        ("true", "image is True, not a whole number from 0 up."),
        ('"' + "9" * 5000 + '"', "not a whole number from 0 up."),
    ],
)
def test_a_wrong_number_of_an_image_is_named(folder: Path, image: str, message: str) -> None:
    with pytest.raises(UserError, match=f"list.json, item 1: .*{re.escape(message)}"):
        read(folder, "list.json", f'[["q?", "red", {image}]]', "{image_id}.png")


def test_a_template_of_images_that_leads_elsewhere_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="must stay inside the folder of the images"):
        read(folder, "list.json", '[["q?", "red", 1]]', "../{image_id}.png")
