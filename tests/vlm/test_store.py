"""The answer store: nothing acknowledged is lost, nothing is asked twice, damage is explained."""

import math
import os
import re
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
from typing import NoReturn

import pytest
import torch
from typer.testing import CliRunner

from lever_plus.cli.main import app
from lever_plus.config.params import Params
from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.engine.features import Features
from lever_plus.vlm.engine.segments import Item
from lever_plus.vlm.engine.table import Segment
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore, prefix_order
from lever_plus.vlm.scorer import Asked, Scorer
from lever_plus.vlm.store.answers import Keys, Store
from lever_plus.vlm.store.cached import StoredVlm
from lever_plus.vlm.store.merging import merge
from lever_plus.vlm.store.segments import KeptSegments
from lever_plus.vlm.usage import Usage
from tiny_world import Folders, World

IDENTITY = VlmIdentity(
    model="m", revision="abc", dtype="float32", prompt_hash="h", generation="greedy"
)
EXAMPLES = {
    i: Example(
        image=f"{i}.png",
        question=f"question {i}?",
        answer=f"answer {i}",
        answers=("cat",) * 10,
        question_id=i,
        image_id=i,
        image_sha256=f"sha{i}",
    )
    for i in range(400)
}
ASKED = [(pointer, q) for q in range(20) for pointer in ((30, 31), (31, 30), (32, 33))]


def ask(pointer: Sequence[int], query: int, examples: dict[int, Example] = EXAMPLES) -> Request:
    """A request for an answer, by ids."""
    return Request(tuple(examples[i] for i in pointer), examples[query].query)


def score(pointer: Sequence[int], query: int, examples: dict[int, Example] = EXAMPLES) -> Request:
    """A request for the likelihood of the query's own answer, by ids."""
    return ask(pointer, query, examples)._replace(answer=examples[query].answer)


REQUESTS = [ask(*asked) for asked in ASKED]
SCORED = [score(*asked) for asked in ASKED]


class Oracle:
    """A backend that answers by formula, in chunks, and remembers what it was asked."""

    def __init__(self, identity: VlmIdentity = IDENTITY) -> None:
        """Start with nothing asked."""
        self.identity, self.usage = identity, Usage()
        self.prompt = PromptFormat()
        self.asked: list[Request] = []
        self.broken: set[Request] = set()

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        shown = [[e.question for e in r.demonstrations] for r in requests]
        texts = [f"{s} {r.query.question}" for s, r in zip(shown, requests, strict=True)]
        return self._all(texts, requests, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        numbers = [int(r.query.question.split()[1].rstrip("?")) for r in requests]
        values = [
            math.nan if r in self.broken else -1.0 / (1 + number)
            for r, number in zip(requests, numbers, strict=True)
        ]
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
    assert len(first.asked) == len(REQUESTS)
    assert set(first.asked) == set(REQUESTS)
    assert len(set(answers)) == len(REQUESTS)
    second = Oracle()
    stored = StoredVlm(second, Store(path))
    assert stored.answers(REQUESTS + REQUESTS) == answers
    assert second.asked == []
    assert (stored.usage.requests, stored.usage.hits) == (len(REQUESTS), len(REQUESTS))


def test_threads_may_use_one_store_at_once(path: Path) -> None:
    """A server asks in other threads than the one that opened it; that is no damage."""
    store = Store(path)

    def put_and_get(number: int) -> bool:
        rows = [(bytes([number, each]) * 8, f"{number} {each}") for each in range(40)]
        store.put("answer", IDENTITY, rows)
        return store.get("answer", [key for key, _ in rows]) == dict(rows)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_and_get, range(60)))
    store.close()


def test_likelihoods_and_answers_are_kept_apart(path: Path) -> None:
    store = Store(path)
    StoredVlm(Oracle(), store).answers(REQUESTS)
    oracle = Oracle()
    values = StoredVlm(oracle, store).log_likelihoods(SCORED)
    assert len(oracle.asked) == len(SCORED)
    again = Oracle()
    assert StoredVlm(again, store).log_likelihoods(SCORED) == values
    assert again.asked == []


@pytest.mark.parametrize("field", IDENTITY)
def test_another_model_prompt_or_decoding_is_another_answer(path: Path, field: str) -> None:
    StoredVlm(Oracle(), Store(path)).answers(REQUESTS)
    other = Oracle(identity={**IDENTITY, field: "other"})
    StoredVlm(other, Store(path)).answers(REQUESTS)
    assert len(other.asked) == len(REQUESTS)


def test_a_likelihood_outlives_another_decoding(path: Path) -> None:
    StoredVlm(Oracle(), Store(path)).log_likelihoods(SCORED)
    other = Oracle(identity={**IDENTITY, "generation": "beam"})
    StoredVlm(other, Store(path)).log_likelihoods(SCORED)
    assert other.asked == []


def test_the_store_keeps_the_text_as_it_was_generated(path: Path) -> None:
    """Where an answer ends can then be decided anew without asking again."""

    class Talkative(Oracle):
        def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
            return self._all([" cat\nQuestion: and now?"] * len(requests), requests, done)

    talkative = Talkative()
    talkative.prompt = PromptFormat(style="flat")
    store = Store(path)
    assert StoredVlm(talkative, store).answers(REQUESTS[:1]) == ["cat"]
    key = Keys("answer", IDENTITY).of(REQUESTS[0])
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
    other = Oracle()
    StoredVlm(other, Store(path)).answers([ask(pointer, q, examples) for pointer, q in ASKED])
    assert len(other.asked) == asked


def test_equal_prompts_under_other_ids_are_one_answer(path: Path) -> None:
    StoredVlm(Oracle(), Store(path)).answers(REQUESTS)
    renumbered = {i: replace(e, question_id=i + 1000) for i, e in EXAMPLES.items()}
    requests = [ask(pointer, q, renumbered) for pointer, q in ASKED]
    other = Oracle()
    StoredVlm(other, Store(path)).answers(requests)
    assert other.asked == []


def test_the_query_s_answer_counts_where_it_is_scored() -> None:
    changed = EXAMPLES | {5: replace(EXAMPLES[5], answer="other")}
    scored = [score((30,), 5, examples) for examples in (EXAMPLES, changed)]
    for kind, differs in (("answer", False), ("log_likelihood", True)):
        keys = [Keys(kind, IDENTITY).of(request) for request in scored]
        assert (keys[0] != keys[1]) == differs
    # An answer is asked for with or without the answer that the query is known to have.
    assert Keys("answer", IDENTITY).of(scored[0]) == Keys("answer", IDENTITY).of(ask((30,), 5))


def test_no_two_requests_share_a_key() -> None:
    keys = Keys("answer", IDENTITY)
    requests = [
        ask(pointer, q)
        for q in range(5)
        for pointer in ((), (30,), (31,), (30, 31), (31, 30), (30, 31, 32))
    ]
    assert len({keys.of(request) for request in requests}) == len(requests)


def test_a_likelihood_that_is_no_number_stops_after_storing_the_others(path: Path) -> None:
    oracle = Oracle()
    bad = SCORED[prefix_order(SCORED)[10]]
    oracle.broken = {bad}
    named = re.escape(f"of {bad.answer!r} as the answer to {bad.query.question!r}")
    with pytest.raises(UserError, match=f"{named} .* after demonstrations .* not a finite"):
        StoredVlm(oracle, Store(path)).log_likelihoods(SCORED)
    again = Oracle()
    StoredVlm(again, Store(path)).log_likelihoods(SCORED)
    assert bad in again.asked
    assert len(again.asked) <= len(SCORED) - 13  # two chunks of 7 were answered, less the bad one


def test_empty_answers_are_stored_and_counted(path: Path) -> None:
    class Silent(Oracle):
        def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
            done(range(len(requests)), [""] * len(requests))
            return [""] * len(requests)

    stored = StoredVlm(Silent(), Store(path))
    asked = [Asked(tuple(EXAMPLES[i] for i in pointer), EXAMPLES[q]) for pointer, q in ASKED]
    scores = Scorer(stored).score(asked)
    assert all(score.vqa_acc_score == 0 for score in scores)
    assert stored.usage.empty == len(REQUESTS)
    assert "60 empty answers" in stored.usage.describe()
    assert Store(path).statistics()[0].empty == len(REQUESTS)


KILLED = """
import sys
import threading
sys.path[:0] = {paths!r}
from pathlib import Path
from vlm.test_store import Oracle, many
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm

class Slow(Oracle):
    def _all(self, values, requests, done):
        for i in range(0, len(requests), 7):
            indices = list(range(i, min(i + 7, len(requests))))
            done(indices, [values[j] for j in indices])
            for j in indices:
                shown = requests[j].demonstrations[0].question_id
                print(requests[j].query.image.removesuffix(".png"), shown, flush=True)
        return values

StoredVlm(Slow(), Store(Path({store!r}))).answers(many())
print("finished", flush=True)
"""


def many() -> list[Request]:
    """As many requests as take a process some seconds."""
    return [ask((d,), q) for q in range(300) for d in range(300, 400)]


def start(path: Path) -> "subprocess.Popen[str]":
    code = KILLED.format(paths=[p for p in sys.path if p], store=str(path))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(1, marks=pytest.mark.long),
        pytest.param(500, marks=pytest.mark.slow),
        pytest.param(3000, marks=pytest.mark.long),
    ],
)
def test_after_kill_9_every_acknowledged_answer_is_there(path: Path, lines: int) -> None:
    process = start(path)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().split() for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    complete = rest.splitlines()[: -1 if not rest.endswith("\n") else None]
    acknowledged += [line.split() for line in complete]
    assert process.returncode == -signal.SIGKILL
    requests = [ask((int(d),), int(q)) for q, d in acknowledged]
    oracle = Oracle()
    StoredVlm(oracle, Store(path)).answers(requests)
    assert oracle.asked == []
    everything = many()
    StoredVlm(oracle, Store(path)).answers(everything)
    assert 0 < len(oracle.asked) <= len(everything) - len(requests)


@pytest.mark.long
def test_two_processes_fill_one_store_and_lose_nothing(path: Path) -> None:
    processes = [start(path), start(path)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert all(output.endswith("finished\n") for output in outputs)
    requests = many()
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
    """SQLite's page limit gives the same error as a full disk."""
    store = filled(path)
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    more = [ask((d, d + 1), q) for q in range(20) for d in range(300, 390)]
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
    StoredVlm(Oracle(identity={**IDENTITY, "revision": "x"}), two).log_likelihoods(SCORED[:5])
    two.close()
    assert merge(one, tmp_path / "two.sqlite") == 20 + 5
    assert merge(one, tmp_path / "two.sqlite") == 0
    oracle = Oracle()
    StoredVlm(oracle, one).answers(REQUESTS)
    assert oracle.asked == []
    assert [s.answers for s in one.statistics()] == [len(REQUESTS), 0]
    with pytest.raises(UserError, match="is missing"):
        merge(one, tmp_path / "three.sqlite")


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
    assert "does not exist yet: the first stage that uses the VLM makes it" in str(
        missing.exception
    )


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

    def here(example: Example) -> Example:
        place = Path(example.image)
        return replace(example, image=str(moved / place.parent.name / place.name))

    shown = tuple(here(e) for e in world.splits["train"][4:12])
    queries = [here(e).query for e in world.splits["test"][:4]]
    requests = [Request(shown[:k], query) for query in queries for k in range(9)]

    def load(megabytes: int) -> HuggingFaceVlm:
        return HuggingFaceVlm(str(folders.vlm), params.vlm, Store(path), megabytes)

    first = load(100)
    answers = first.answers(requests)
    # The check at start reads the first images anew; everything else must come from the store.
    probes = {*(e.image for e in shown[:3]), queries[0].image}
    for image in moved.rglob("*.png"):
        if str(image) not in probes:
            image.unlink()
    second = load(100)
    assert second.answers(requests) == answers
    assert first.engine is not None
    assert second.engine is not None
    items = [*(Item(e.query, e.answer) for e in shown), *(Item(q, None) for q in queries)]
    for item in items:
        one, two = first.engine.segments._made[item], second.engine.segments._made[item]
        assert one.features.embeds.equal(two.features.embeds)
        assert (one.query, one.answer) == (two.query, two.answer)


def test_image_features_are_kept_within_their_budget(path: Path) -> None:
    store = Store(path)
    assert not store.put_segments(IDENTITY, [(b"k", b"x" * 100)], budget=99)
    assert store.segments([b"k"]) == {}
    assert store.put_segments(IDENTITY, [(b"k", b"x" * 99)], budget=99)
    assert store.segments([b"k"]) == {b"k": b"x" * 99}


class Mute(Oracle):
    """A backend that must not be asked."""

    def _all(self, *given: object) -> NoReturn:
        raise AssertionError(f"asked {given[1]}")


OLD = VlmIdentity(
    model="M",
    revision="r" * 64,
    dtype="float32",
    prompt_hash="p" * 64,
    generation="num_beams=1, max_new_tokens=1",
)
OLD_EXAMPLES = {
    i: Example(
        image=f"moved/{i}.png",
        question=f"What is {i}, é?",
        answer=f"a{i}",
        image_sha256=f"{i:064x}",
    )
    for i in range(6)
}


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A store that version 0.1 wrote, when requests named ids."""
    file = shutil.copy(Path(__file__).parent / "store_of_version_0_1.sqlite", tmp_path)
    return Store(Path(file))


def test_every_answer_of_version_0_1_is_found(old: Store) -> None:
    """Such files may hold hours of GPU work; keys are still made of content."""
    pointers: list[tuple[int, ...]] = [(), (2,), (2, 3), (3, 2), (2, 3, 4, 5)]
    asked = [(pointer, q) for q in (0, 1) for pointer in pointers]
    vlm = StoredVlm(Mute(OLD), old)
    answers = vlm.answers([ask(pointer, q, OLD_EXAMPLES) for pointer, q in asked])
    assert answers == [f"{q}:{','.join(map(str, pointer))}" for pointer, q in asked]
    values = vlm.log_likelihoods([score(pointer, q, OLD_EXAMPLES) for pointer, q in asked])
    assert values == [-(q + 1) / (1 + len(pointer)) for pointer, q in asked]
    assert vlm.usage.hits == vlm.usage.requests == 20
    with pytest.raises(AssertionError, match="asked"):
        vlm.answers([ask((4,), 0, OLD_EXAMPLES)])


def test_a_segment_of_version_0_1_is_made_again(old: Store) -> None:
    """It has only embeddings, which would be misread where positions have three axes."""
    item = Item(OLD_EXAMPLES[2].query, OLD_EXAMPLES[2].answer)
    kept = KeptSegments(old, OLD, 1)
    assert kept.get([item]) == {}
    embeds = torch.arange(6.0).view(3, 2)
    extra = {"mask": torch.tensor([True, False, True]), "deep": torch.ones(3, 4, 2)}
    positions = torch.tensor([[0, 0, 0], [1, 2, 1], [3, 3, 3]])
    types = {"token_type_ids": torch.tensor([1, 0, 0], dtype=torch.int32)}
    ids = torch.tensor([4, 5, 6])
    features = Features(ids, embeds.bfloat16(), positions, types, extra, {"deep": "mask"})
    kept.put({item: Segment(features, 2, (7,))})
    found = KeptSegments(old, OLD, 1).get([item, item._replace(follows=True)])
    assert list(found) == [item]
    assert (found[item].query, found[item].answer) == (2, (7,))
    assert found[item].features.kind == features.kind
    for name, value in features.tensors().items():
        assert found[item].features.tensors()[name].equal(value)
