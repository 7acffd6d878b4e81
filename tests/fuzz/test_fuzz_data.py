"""Questions, pools and examples with bad content: a sentence, or examples that are right."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from doors import Bad, try_all
from texts import changed, damaged, json_lines

from lever_plus.data.examples import (
    LARGEST_ID,
    Example,
    most_frequent_answer,
    read_examples,
    write_examples,
)
from lever_plus.data.lists import read_list
from lever_plus.data.pool_files import read_pool
from lever_plus.data.pools import read_pools
from lever_plus.data.vqa_files import read_vqa_files
from lever_plus.errors import UserError

QUESTIONS: Final = [{"question_id": i, "image_id": i, "question": f"what {i}?"} for i in (1, 2)]
ANNOTATIONS: Final = [
    {"question_id": i, "image_id": i, "answers": [{"answer": "yes"}] * 7 + [{"answer": "no"}] * 3}
    for i in (1, 2)
]
BADLY: Final = (
    *("true", "1.0", '"1"', "-1", "9223372036854775808", "9" * 5_000, "null", "[]", "{}", "NaN"),
    *("1e400", '"\\ud800"', '"a\\u0000b"', '""', '" \\t"', '"\\u0007"', "[" * 9_000, "Infinity"),
)


def check(examples: list[Example]) -> None:
    """Assert that examples are what a metric and a prompt can use."""
    assert examples
    assert len({e.question_id for e in examples}) == len(examples)
    for example in examples:
        assert type(example.question_id) is type(example.image_id) is int
        assert min(example.question_id, example.image_id) >= 0
        assert max(example.question_id, example.image_id) <= LARGEST_ID
        for text in (example.question, example.answer):
            assert text.strip()
            assert "\0" not in text
            text.encode("utf-8")
        assert all(isinstance(answer, str) for answer in example.answers)
        assert not example.answers or example.answer == most_frequent_answer(example.answers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"x%d" % number)
    return tmp_path


def vqa(folder: Path, name: str, questions: bytes, annotations: bytes) -> Bad:
    def run() -> None:
        (folder / "q.json").write_bytes(questions)
        (folder / "a.json").write_bytes(annotations)
        files = (folder / "q.json", folder / "a.json", folder / "images")
        found = read_vqa_files(*files, "{image_id}.png")
        check(found)
        assert all(len(example.answers) == 10 for example in found)

    return Bad(name, run, ("q.json", "a.json"))


def wrong_fields() -> Iterator[tuple[str, bytes, bytes]]:
    """Yield every field with every bad value, as JSON text that Python may not be able to write."""
    good = [json.dumps({"questions": QUESTIONS}), json.dumps({"annotations": ANNOTATIONS})]
    fields = (
        *((0, '"question_id": 2'), (0, '"image_id": 2'), (0, '"question": "what 2?"')),
        *((1, '"question_id": 2'), (1, '"image_id": 2'), (1, '"answer": "yes"')),
    )
    for place, field in fields:
        for value in BADLY:
            texts = list(good)
            key = field.partition(":")[0]
            texts[place] = texts[place].replace(field, f"{key}: {value}")
            yield f"{key} is {value[:20]}", texts[0].encode(), texts[1].encode()
        texts = list(good)
        texts[place] = texts[place].replace(field, f"{field}, {field}", 1)
        yield f"{field} occurs twice", texts[0].encode(), texts[1].encode()


def test_files_in_vqav2_format(folder: Path) -> None:
    q, a = json.dumps({"questions": QUESTIONS}), json.dumps({"annotations": ANNOTATIONS})
    rng = random.Random(1)
    inputs = [vqa(folder, *each) for each in wrong_fields()]
    inputs += [
        vqa(folder, name, json.dumps(content).encode(), a.encode())
        for name, content in changed({"questions": QUESTIONS}, rng, 150)
    ]
    inputs += [
        vqa(folder, name, q.encode(), json.dumps(content).encode())
        for name, content in changed({"annotations": ANNOTATIONS}, rng, 150)
    ]
    inputs += [vqa(folder, n, c, a.encode()) for n, c in damaged(q.encode(), rng, 70)]
    inputs += [vqa(folder, n, q.encode(), c) for n, c in damaged(a.encode(), rng, 70)]
    inputs += [
        vqa(folder, text, text.encode(), text.encode())
        for text in ("", "null", "[]", "1", '{"questions": [], "annotations": []}', '"x"', "{}")
    ]
    try_all("files in VQAv2 format", inputs, folder / "images")


def test_a_wrong_field_is_named_with_its_question(folder: Path) -> None:
    annotations = [*ANNOTATIONS[:1], {**ANNOTATIONS[1], "answers": [{"answer": 5}]}]
    content = json.dumps({"questions": QUESTIONS}).encode()
    bad = vqa(folder, "", content, json.dumps({"annotations": annotations}).encode())
    with pytest.raises(UserError, match=r"annotations\[1\]\.answers\[0\]\.answer.*question_id 2"):
        bad.run()


def test_fields_that_are_not_needed_may_hold_anything(folder: Path) -> None:
    questions = {
        **{"info": {"version": "2.0"}, "data_type": 5, "license": None},
        "questions": [{**row, "data_type": [], "question_type": None} for row in QUESTIONS],
    }
    annotations = {
        "annotations": [
            {**row, "answers": [{**a, "answer_confidence": 5} for a in row["answers"]]}
            for row in ANNOTATIONS
        ]
    }
    vqa(folder, "", json.dumps(questions).encode(), json.dumps(annotations).encode()).run()


def bad_lines(rows: list[Any], rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes) of a file of JSON lines that is damaged, or has bad values."""
    yield from damaged(json_lines(rows), rng, 100)
    for name, content in changed(rows, rng, 200):
        yield name, json_lines(content)


def test_pools_of_a_user(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "images/1.png", "question": "q?", "answer": "red", "question_id": 7},
        {"image": "images/2.png", "question": "p?", "answers": ["a", "a", "b"], "image_id": 3},
    ]
    path, rng = folder / "pool.jsonl", random.Random(2)

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            found = read_pool(path)
            assert len({e.question_id for e in found}) == len(found)
            assert all("\0" not in e.question + e.answer and e.question.strip() for e in found)

        return Bad(name, run, ("pool.jsonl",))

    inputs = [bad(*each) for each in bad_lines(rows, rng)]
    try_all("a user's pool", inputs, folder / "images")


def test_lists_of_a_user_in_csv(folder: Path) -> None:
    text = b'question_id,image,question,answer\n7,1.png,"q, ""r""?",red\n8,2.png,"p\n?",blue\n'
    path = folder / "list.csv"

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            found = list(read_list(path, folder / "images").values())
            check(found)

        return Bad(name, run, ("list.csv",))

    inputs = [bad(*each) for each in damaged(text, random.Random(5), 300)]
    try_all("a user's list in CSV", inputs, folder / "images")


def test_examples(folder: Path) -> None:
    path, rng = folder / "e.jsonl", random.Random(3)
    examples = [
        Example("images/1.png", "q?", "a", ("a",) * 10, number, number, "0") for number in (1, 2)
    ]
    write_examples(path, examples)
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            found = read_examples(path)
            assert len({e.question_id for e in found}) == len(found) > 0
            assert all(0 <= e.question_id <= LARGEST_ID for e in found)

        return Bad(name, run, ("e.jsonl",))

    inputs = [bad(*each) for each in bad_lines(rows, rng)]
    try_all("examples", inputs, folder / "images")


def test_pool_files(folder: Path) -> None:
    path, rng = folder / "pools.jsonl", random.Random(4)
    rows = [{"query_id": q, "pool": [i for i in range(5) if i != q]} for q in range(3)]

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            pools = read_pools(path)
            assert pools.ids
            for query, pool in pools.ids.items():
                assert all(type(i) is int and i >= 0 for i in (query, *pool))
                assert len(set(pool) | {query}) == len(pool) + 1 > 1

        return Bad(name, run, ("pools.jsonl",))

    inputs = [bad(*each) for each in bad_lines(rows, rng)]
    inputs.append(bad("a line twice", json_lines([*rows, rows[0]])))
    try_all("pool files", inputs)
