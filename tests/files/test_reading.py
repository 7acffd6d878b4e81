"""Readers and the writer: what can't be used ends in a sentence that names the place."""

import json
import os
from pathlib import Path

import pytest

from lever_plus.errors import UserError
from lever_plus.files.checking import Row
from lever_plus.files.json_files import (
    json_lines,
    json_lines_as,
    parse_json,
    read_json,
    read_object,
)
from lever_plus.files.names import check_name
from lever_plus.files.reading import read_bytes
from lever_plus.files.writing import replacing, write_json, write_json_lines, write_text
from lever_plus.files.yaml_files import read_yaml

ALIASES = b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1) if n else b"1"] * 9))
    for n in range(9)
)


class Sample(Row):
    """The content of a line in these tests."""

    number: int
    texts: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": [Infinity]}', "Infinity is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": 1e999}', "1e999 is larger than any number"),
        ('{"a": 1, "b": 2, "a": 1}', "'a' occurs twice"),
        ('{"a": ', "line 1 column 7"),
        ("", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "not valid JSON"),
        ('"\\ud800"', "half a character"),
        ('{"\\uDc00": 1}', "half a character"),
    ],
)
def test_json_that_is_not_strict_is_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"{path}.*{why}.*: do this"):
        read_json(path, "do this")


def test_json_is_read_as_it_is(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True, "ä😀", 10**30], "b": {}}
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert read_json(path, "") == content
    assert parse_json('"\\ud83d\\ude00"', "here", "") == "😀"


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"a": "ä"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 7\)"):
        read_json(path, "save it again")
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="holds no JSON object"):
        read_object(path, "look")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    long = tmp_path / ("n" * 300)
    for path in (pipe, tmp_path, long, tmp_path / "a\0b", tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(UserError, match="do this"):
            read_bytes(path, "do this")
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(UserError, match="5 bytes, more than the 4"):
        read_bytes(tmp_path / "big", "do this", limit=4)


def test_lines_are_named_and_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"number": 1, "texts": ["a\u2028b"]}\n\n{"number": 2}\n{"number": "3"}\n')
    rows = json_lines_as(Sample, path, "mend it")
    assert next(rows) == Sample(number=1, texts=("a\u2028b",))
    assert next(rows) == Sample(number=2)
    with pytest.raises(UserError, match=f"{path}, line 4: number: .*integer, not '3': mend it"):
        next(rows)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"number": True}, "number: .*not True"),
        ({"number": 1.0}, "number: .*not 1.0"),
        ({"number": 1, "texts": ["a", 2]}, "texts.1: .*not 2"),
        ({"number": 1, "texts": "ab"}, "texts: .*not 'ab'"),
        ({"texts": []}, "number is missing"),
        ({"number": 1, "nummer": 2}, "unknown key nummer"),
        ([], "it: "),
        (None, "it: .*not None"),
    ],
)
def test_fields_are_not_converted(fields: object, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(fields) + "\n")
    with pytest.raises(UserError, match=f"line 1: {why}"):
        list(json_lines_as(Sample, path, "mend it"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": "ä"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "ä",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(KeyError), replacing(path) as fresh:
        raise KeyError(fresh.write_text("half"))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_lines(path, [{"a": 1}, {"a": float("inf")}])
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä", "b": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert write_json_lines(path, [{"b": 1, "a": 2}, {}]) == 2
    assert [line for _, line in json_lines(path, "")] == [{"a": 2, "b": 1}, {}]


def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(UserError, match="a.txt can't be written .*No space left"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "before"
    with pytest.raises(UserError, match="can't be written"):
        write_text(path / "below", "text")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "-a", "a/b", "/a", "a b", "a\n", "ä", "a" * 101, "a\\b", "default"],
)
def test_names_that_are_no_files_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="variants.yaml: variant"):
        check_name(name, "variants.yaml: variant", {"Default"})


def test_plain_names_are_taken_as_they_are() -> None:
    names = ["a", "A-1_b.c", "_x", "9-", "a" * 100]
    assert [check_name(name, "name") for name in names] == names


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a: [1", "is not YAML"),
        (b"a: 1\na: 2", "duplicate key"),
        (b"- 1", "does not map names to values"),
        (b"", "does not map names to values"),
        (b"a: .inf", "a is inf"),
        (b"a: {b: [1, .nan]}", "a.b.1 is nan"),
        (b"1: 2", "1 is not a name"),
        (b"a: " + b"9" * 5_000, "not YAML that can be used"),
        (b"a: 2024-99-99", "not YAML"),
        (b"a: " + b"[" * 20_000, "nested too deeply"),
        ("a: ä".encode("latin-1"), "not UTF-8"),
        ("a: ä".encode("utf-16"), "not UTF-8"),
        (b"a: \x07", "not YAML"),
        (b"a: !!python/object:os.system 1", "not YAML"),
        (b"? [a]\n: 1", "not a name"),
        (b"a: &a [*a]", "nested too deeply"),
        (ALIASES, "more than 100,000 values"),
    ],
)
def test_yaml_that_holds_no_settings_is_a_sentence(text: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=f"{path}.*{why}"):
        read_yaml(path, "see the README")


def test_what_killed_processes_left_beside_a_file_is_removed(tmp_path: Path) -> None:
    dead, living = ".a.4194304-0123abcd.txt", f".a.{os.getppid()}-0123abcd.txt"
    for name in (dead, living, ".a.txt", "a.b-01234567.txt"):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", living, ".a.txt", "a.b-01234567.txt"}


def test_an_error_of_what_the_block_reads_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_text()


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, TimeoutError])
def test_a_connection_that_breaks_while_a_file_is_written_is_not_blamed_on_the_file(
    tmp_path: Path, error: type[OSError]
) -> None:
    with pytest.raises(error), replacing(tmp_path / "a.txt"):
        raise error
    assert not list(tmp_path.iterdir())
