"""The answer store: nothing acknowledged is lost, nothing is asked twice, damage is explained."""

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lever_plus.cli.main import app
from lever_plus.config.params import Params
from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore
from lever_plus.vlm.scorer import Scorer
from lever_plus.vlm.store.answers import Keys, Store
from lever_plus.vlm.store.cached import StoredVlm
from lever_plus.vlm.usage import Usage
from tiny_world import Folders, World

IDENTITY = VlmIdentity(
    model="m", revision="abc", dtype="float32", prompt_hash="h", generation="greedy"
)
EXAMPLES = {
    i: Example(i, i, f"{i}.png", f"sha{i}", f"question {i}?", ("cat",) * 10, f"answer {i}")
    for i in range(400)
}
REQUESTS = [Request((a, b), q) for q in range(20) for a, b in ((30, 31), (31, 30), (32, 33))]


class Oracle:
    """A backend that answers by formula, in chunks, and remembers what it was asked."""

    def __init__(
        self, examples: dict[int, Example] = EXAMPLES, identity: VlmIdentity = IDENTITY
    ) -> None:
        """Start with nothing asked."""
        self.examples, self.identity, self.usage = examples, identity, Usage()
        self.prompt = PromptFormat()
        self.asked: list[Request] = []
        self.broken: set[Request] = set()

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        return self._all([f"{r.demonstrations} {r.query}" for r in requests], requests, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        values = [math.nan if r in self.broken else -1.0 / (1 + r.query) for r in requests]
        return self._all(values, requests, done)

    def _all(self, values: list, requests: Sequence[Request], done: Done) -> list:
        self.asked += requests
        for start in range(0, len(requests), 7):
            indices = list(range(start, min(start + 7, len(requests))))
            done(indices, [values[i] for i in indices])
        return values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "answers.sqlite"


def test_what_was_asked_once_is_never_asked_again(path: Path) -> None:
    first = Oracle()
    answers = StoredVlm(first, Store(path)).answers(REQUESTS + REQUESTS)
    assert sorted(first.asked) == sorted(set(REQUESTS))
    second = Oracle()
    stored = StoredVlm(second, Store(path))
    assert stored.answers(REQUESTS + REQUESTS) == answers
    assert second.asked == []
    assert (stored.usage.requests, stored.usage.hits) == (len(REQUESTS), len(REQUESTS))


def test_likelihoods_and_answers_are_kept_apart(path: Path) -> None:
    store = Store(path)
    StoredVlm(Oracle(), store).answers(REQUESTS)
    oracle = Oracle()
    values = StoredVlm(oracle, store).log_likelihoods(REQUESTS)
    assert len(oracle.asked) == len(REQUESTS)
    assert StoredVlm(Oracle(), store).log_likelihoods(REQUESTS) == values


@pytest.mark.parametrize("field", IDENTITY)
def test_another_model_prompt_or_decoding_is_another_answer(path: Path, field: str) -> None:
    StoredVlm(Oracle(), Store(path)).answers(REQUESTS)
    other = Oracle(identity={**IDENTITY, field: "other"})
    StoredVlm(other, Store(path)).answers(REQUESTS)
    assert len(other.asked) == len(REQUESTS)


def test_a_likelihood_outlives_another_decoding(path: Path) -> None:
    StoredVlm(Oracle(), Store(path)).log_likelihoods(REQUESTS)
    other = Oracle(identity={**IDENTITY, "generation": "beam"})
    StoredVlm(other, Store(path)).log_likelihoods(REQUESTS)
    assert other.asked == []


def test_the_store_keeps_the_text_as_it_was_generated(path: Path) -> None:
    """Where an answer ends may be decided anew without asking again."""

    class Talkative(Oracle):
        def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
            return self._all([" cat\nQuestion: and now?"] * len(requests), requests, done)

    talkative = Talkative()
    talkative.prompt = PromptFormat(style="flat")
    store = Store(path)
    assert StoredVlm(talkative, store).answers(REQUESTS[:1]) == ["cat"]
    key = Keys("answer", IDENTITY, EXAMPLES).of(REQUESTS[0])
    assert store.get("answer", [key]) == {key: " cat\nQuestion: and now?"}


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({30: {"image_sha256": "other"}}, 40),
        ({30: {"question": "other?"}}, 40),
        ({30: {"answer": "other"}}, 40),
        ({5: {"image_sha256": "other"}}, 3),
        ({5: {"question": "other?"}}, 3),
        ({5: {"answer": "other"}}, 0),
        ({30: {"image": "elsewhere.png", "image_id": 999}}, 0),
    ],
    ids=str,
)
def test_the_key_is_the_content_of_the_prompt(
    path: Path, changed: dict[int, dict[str, str]], asked: int
) -> None:
    """A demonstration's answer is in the prompt, the query's is not; file names are not."""
    StoredVlm(Oracle(), Store(path)).answers(REQUESTS)
    examples = EXAMPLES | {i: replace(EXAMPLES[i], **fields) for i, fields in changed.items()}
    other = Oracle(examples)
    StoredVlm(other, Store(path)).answers(REQUESTS)
    assert len(other.asked) == asked


def test_equal_prompts_under_other_ids_are_one_answer(path: Path) -> None:
    StoredVlm(Oracle(), Store(path)).answers(REQUESTS)
    renumbered = {i + 1000: e for i, e in EXAMPLES.items()}
    requests = [
        Request(tuple(i + 1000 for i in r.demonstrations), r.query + 1000) for r in REQUESTS
    ]
    other = Oracle(renumbered)
    StoredVlm(other, Store(path)).answers(requests)
    assert other.asked == []


def test_the_query_s_answer_counts_where_it_is_scored() -> None:
    changed = EXAMPLES | {5: replace(EXAMPLES[5], answer="other")}
    request = Request((30,), 5)
    for kind, differs in (("answer", False), ("log_likelihood", True)):
        keys = [Keys(kind, IDENTITY, examples).of(request) for examples in (EXAMPLES, changed)]
        assert (keys[0] != keys[1]) == differs


def test_no_two_requests_share_a_key() -> None:
    keys = Keys("answer", IDENTITY, EXAMPLES)
    requests = [
        Request(pointer, q)
        for q in range(5)
        for pointer in ((), (30,), (31,), (30, 31), (31, 30), (30, 31, 32))
    ]
    assert len({keys.of(request) for request in requests}) == len(requests)


def test_a_likelihood_that_is_no_number_stops_after_storing_the_others(path: Path) -> None:
    oracle = Oracle()
    bad = sorted(REQUESTS)[10]
    oracle.broken = {bad}
    with pytest.raises(UserError, match=f"query {bad.query} after demonstrations .* no finite"):
        StoredVlm(oracle, Store(path)).log_likelihoods(REQUESTS)
    again = Oracle()
    StoredVlm(again, Store(path)).log_likelihoods(REQUESTS)
    assert bad in again.asked
    assert len(again.asked) <= len(REQUESTS) - 13  # two chunks of 7 were answered, less the bad one


def test_empty_answers_are_stored_and_counted(path: Path) -> None:
    class Silent(Oracle):
        def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
            done(range(len(requests)), [""] * len(requests))
            return [""] * len(requests)

    stored = StoredVlm(Silent(), Store(path))
    scores = Scorer(stored).score(REQUESTS)
    assert all(score.vqa_acc_score == 0 for score in scores)
    assert stored.usage.empty == len(REQUESTS)
    assert "60 empty answers" in stored.usage.describe()
    assert Store(path).statistics()[0].empty == len(REQUESTS)


KILLED = """
import sys
import threading
sys.path[:0] = {paths!r}
from pathlib import Path
from vlm.test_store import EXAMPLES, Oracle
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm

class Slow(Oracle):
    def _all(self, values, requests, done):
        for i in range(0, len(requests), 7):
            indices = list(range(i, min(i + 7, len(requests))))
            done(indices, [values[j] for j in indices])
            for j in indices:
                print(requests[j].query, requests[j].demonstrations[0], flush=True)
        return values

requests = [Request((d,), q) for q in range(300) for d in range(300, 400)]
StoredVlm(Slow(), Store(Path({store!r}))).answers(requests)
print("finished", flush=True)
"""


def start(path: Path) -> "subprocess.Popen[str]":
    code = KILLED.format(paths=[p for p in sys.path if p], store=str(path))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 500, 3000])
def test_after_kill_9_every_acknowledged_answer_is_there(path: Path, lines: int) -> None:
    process = start(path)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().split() for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    complete = rest.splitlines()[: -1 if not rest.endswith("\n") else None]
    acknowledged += [line.split() for line in complete]
    assert process.returncode == -signal.SIGKILL
    requests = [Request((int(d),), int(q)) for q, d in acknowledged]
    oracle = Oracle()
    StoredVlm(oracle, Store(path)).answers(requests)
    assert oracle.asked == []
    everything = [Request((d,), q) for q in range(300) for d in range(300, 400)]
    StoredVlm(oracle, Store(path)).answers(everything)
    assert 0 < len(oracle.asked) <= len(everything) - len(requests)


@pytest.mark.slow
def test_two_processes_fill_one_store_and_lose_nothing(path: Path) -> None:
    processes = [start(path), start(path)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert all(output.endswith("finished\n") for output in outputs)
    requests = [Request((d,), q) for q in range(300) for d in range(300, 400)]
    oracle = Oracle()
    store = Store(path)
    StoredVlm(oracle, store).answers(requests)
    assert oracle.asked == []
    assert store.statistics()[0].answers == len(requests)  # each once


def test_several_make_one_store_at_once(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        together.wait()
        Store(path).close()

    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        for number in range(50):
            path = tmp_path / f"{number}.sqlite"
            for made in [threads.submit(make, path) for _ in range(4)]:
                made.result()


def filled(path: Path, identity: VlmIdentity = IDENTITY) -> Store:
    store = Store(path)
    StoredVlm(Oracle(identity=identity), store).answers(REQUESTS)
    return store


def test_a_damaged_file_is_explained_and_left_alone(path: Path) -> None:
    filled(path).close()
    content = bytearray(path.read_bytes())
    content[:100] = b"\x00" * 100
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"answers.sqlite: it is damaged .*move it away"):
        Store(path)
    assert path.read_bytes() == bytes(content)


def test_a_truncated_file_is_explained(path: Path) -> None:
    filled(path).close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="it is damaged"):
        StoredVlm(Oracle(), Store(path)).answers(REQUESTS)


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    filled(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(UserError, match="schema version 7 of the answer store"):
        Store(path)


def test_a_full_disk_is_explained_and_loses_nothing(path: Path) -> None:
    """SQLite's page limit gives the very error of a full disk."""
    store = filled(path)
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    more = [Request((d, d + 1), q) for q in range(20) for d in range(300, 390)]
    with pytest.raises(UserError, match=r"disk is full. Everything stored before is safe"):
        StoredVlm(Oracle(), store).answers(more)
    store.close()
    oracle = Oracle()
    StoredVlm(oracle, Store(path)).answers(REQUESTS)
    assert oracle.asked == []


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*set scoring.store"):
        Store(tmp_path / "file" / "answers.sqlite")
    with pytest.raises(UserError, match=r"cannot be written .*set scoring.store"):
        Store(Path("/proc/answers.sqlite"))


def test_stores_of_two_machines_are_merged(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "one.sqlite"), Store(tmp_path / "two.sqlite")
    StoredVlm(Oracle(), one).answers(REQUESTS[:40])
    StoredVlm(Oracle(), two).answers(REQUESTS[20:])
    StoredVlm(Oracle(identity={**IDENTITY, "revision": "x"}), two).log_likelihoods(REQUESTS[:5])
    two.close()
    assert one.merge(tmp_path / "two.sqlite") == 20 + 5
    assert one.merge(tmp_path / "two.sqlite") == 0
    oracle = Oracle()
    StoredVlm(oracle, one).answers(REQUESTS)
    assert oracle.asked == []
    assert [s.answers for s in one.statistics()] == [len(REQUESTS), 0]
    with pytest.raises(UserError, match="is missing"):
        one.merge(tmp_path / "three.sqlite")


def test_prune_keeps_one_revision(path: Path) -> None:
    store = filled(path)
    filled(path, {**IDENTITY, "revision": "old"})
    assert store.prune("abc") == len(REQUESTS)
    assert [s.identity["revision"] for s in store.statistics()] == ["abc"]
    oracle = Oracle()
    StoredVlm(oracle, store).answers(REQUESTS)
    assert oracle.asked == []


def test_the_commands_say_what_they_did(path: Path, tmp_path: Path) -> None:
    filled(path).close()
    filled(tmp_path / "other.sqlite", {**IDENTITY, "revision": "old"}).close()
    run = CliRunner().invoke
    options = ["--file", str(path)]
    merged = run(app, ["store", "merge", str(tmp_path / "other.sqlite"), *options])
    assert "60 new answers" in merged.output
    said = run(app, ["store", "stat", *options]).output
    assert "m abc float32" in said
    assert "m old float32" in said
    assert "60 answers removed" in run(app, ["store", "prune", "--keep", "abc", *options]).output
    assert "old" not in run(app, ["store", "stat", *options]).output
    missing = run(app, ["store", "stat", "--file", str(tmp_path / "no.sqlite")])
    assert "is made when a stage asks the VLM" in str(missing.exception)


def test_prune_refuses_what_would_empty_the_store(path: Path) -> None:
    """A mistyped revision must not cost hours of a GPU."""
    store = filled(path)
    with pytest.raises(UserError, match="starts with 'abd', so nothing was removed: it holds abc"):
        store.prune("abd")
    assert store.statistics()[0].answers == len(REQUESTS)


def test_image_features_outlive_the_process(
    path: Path, folders: Folders, world: World, params: Params, tmp_path: Path
) -> None:
    """A second VLM on the same store answers though the images are gone."""
    moved = tmp_path / "images"
    shutil.copytree(Path(world.splits["test"][0].image).parents[1], moved)
    examples = {
        i: replace(e, image=str(moved / Path(e.image).parent.name / Path(e.image).name))
        for i, e in world.examples.items()
    }
    train = [e.question_id for e in world.splits["train"][4:8]]
    query = world.splits["test"][0].question_id
    requests = [Request(tuple(train[:k]), query) for k in range(5)]

    def load(megabytes: int) -> HuggingFaceVlm:
        return HuggingFaceVlm(str(folders.vlm), examples, params.vlm, Store(path), megabytes)

    first = load(100)
    answers = first.answers(requests)
    # The check at start reads the first examples anew; everything else must come from the store.
    probes = {examples[i].image for i in list(examples)[:3]}
    for image in moved.rglob("*.png"):
        if str(image) not in probes:
            image.unlink()
    second = load(100)
    assert second.answers(requests) == answers
    assert first.engine is not None
    assert second.engine is not None
    for i in (*train, query):
        one, two = first.engine.segments._made[i], second.engine.segments._made[i]
        assert one.embeds.equal(two.embeds)
        assert (one.query, one.answer) == (two.query, two.answer)


def test_image_features_are_kept_within_their_budget(path: Path) -> None:
    store = Store(path)
    assert not store.put_segments(IDENTITY, [(b"k", b"x" * 100)], budget=99)
    assert store.segments([b"k"]) == {}
    assert store.put_segments(IDENTITY, [(b"k", b"x" * 99)], budget=99)
    assert store.segments([b"k"]) == {b"k": b"x" * 99}
