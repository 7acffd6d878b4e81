"""A selector goes to the Hugging Face Hub and comes back, through the Hub's own client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.conftest import Asked
from hosts.local_hub import Hub, serve
from lever_plus import load_selector
from lever_plus.errors import UserError
from lever_plus.selectors.learned import FILES, LearnedSelector
from trained_selector import SHOTS

NAME = "user/house-words"
PUSH = """
import sys
from lever_plus import load_selector
print(load_selector(sys.argv[1]).push_to_hub(sys.argv[2], private=True))
"""
SELECT = """
import json, sys
from lever_plus import Query, load_selector, read_pool
selector, pool = load_selector(sys.argv[1], revision=sys.argv[2] or None), read_pool("pool.jsonl")
queries = [Query(*each) for each in json.load(sys.stdin)]
found = selector.select_all(queries, [pool] * len(queries), int(sys.argv[3]))
print(json.dumps([[e.image for e in chosen.examples] for chosen in found]))
"""
Served = tuple[Hub, dict[str, str]]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A hub, and what a process needs to be its client."""
    hub = Hub()
    with serve(hub) as url:
        own = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_a-token"}
        yield hub, {**os.environ, **own, "HF_HOME": str(tmp_path / "home")}


def run(
    code: str, environment: dict[str, str], folder: Path, *arguments: str, said: str = ""
) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=folder,
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def test_it_selects_the_same_after_a_journey(
    served: Served, checkpoint: Path, asked: Asked, tmp_path: Path
) -> None:
    hub, environment = served
    (checkpoint / "notes.txt").write_text("not for others")
    address = run(PUSH, environment, tmp_path, str(checkpoint), NAME)
    assert address.endswith(f"/{NAME}/commit/{hub.commit(NAME)}")
    assert hub.models[NAME] == {name: (checkpoint / name).read_bytes() for name in FILES}
    assert hub.private[NAME]
    rows = [{"image": e.image, "question": e.question, "answer": e.answer} for e in asked.pool]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "pool.jsonl").write_text(lines, encoding="utf-8")
    said = json.dumps([[query.image, query.question] for query in asked.queries])
    expected = [[example.image for example in chosen] for chosen in asked.chosen]
    assert (
        json.loads(run(SELECT, environment, tmp_path, NAME, "", str(SHOTS), said=said)) == expected
    )
    offline = {**environment, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    commit = hub.commit(NAME)
    assert (
        json.loads(run(SELECT, offline, tmp_path, NAME, commit, str(SHOTS), said=said)) == expected
    )


def test_what_the_hub_does_not_have_is_named(served: Served, tmp_path: Path) -> None:
    _, environment = served
    said = run(SELECT, environment, tmp_path, "user/nothing", "", "1", said="[]")
    assert "nothing holds no checkpoint: there is no such folder, and it is not on the hub" in said


def test_nothing_is_fetched_or_sent_where_the_environment_does_not_allow_it(
    checkpoint: Path, trained: LearnedSelector
) -> None:
    with pytest.raises(UserError, match="not in the local Hugging Face cache"):
        load_selector("user/nothing")
    selector = load_selector(checkpoint)
    with pytest.raises(UserError, match="nothing is sent to user/name: set HF_HUB_OFFLINE=0"):
        selector.push_to_hub("user/name")
    with pytest.raises(UserError, match="'name' is not a name on the Hugging Face Hub"):
        selector.push_to_hub("name")
    with pytest.raises(UserError, match="was not loaded from a checkpoint"):
        trained.push_to_hub("user/name")
    with pytest.raises(UserError, match="which has no revisions"):
        load_selector(checkpoint, revision="main")


@pytest.mark.long
def test_a_hub_that_refuses_is_quoted(served: Served, checkpoint: Path, tmp_path: Path) -> None:
    _, environment = served
    gone = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    said = run(PUSH, gone, tmp_path, str(checkpoint), NAME)
    assert f"{NAME} cannot be sent to the Hugging Face Hub (" in said
    assert "hf_a-token" not in said
