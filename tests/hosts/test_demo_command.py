"""`lever-plus demo` finds selector, pool and VLM: the pipeline's, or those its options name."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hosts.conftest import Asked
from lever_plus import load_selector
from lever_plus.cli.main import app
from lever_plus.config.names import GRPO, GRPO_STOP
from lever_plus.data.examples import write_examples
from lever_plus.data.pools import write_pools
from lever_plus.errors import UserError
from lever_plus.hosts.demo.play import LEARNED, STOPPING, Playground
from lever_plus.house_words.maker import LATENT, read_meanings
from lever_plus.pipeline.paths import Paths
from tiny_checkpoint import make_checkpoint
from tiny_world import ROOT, Folders
from tiny_world import World as Data
from trained_selector import SHOTS, written_pool

pytest.importorskip("gradio", reason="extra [demo] is not installed")
COMMAND = re.compile(r"^lever-plus (demo.*)$", re.MULTILINE)
POOL = 10


class Served:
    """Records what the command would have served."""

    def __init__(self) -> None:
        """Serve nothing yet."""
        self.play: Playground | None = None
        self.rest: tuple[object, ...] = ()

    def __call__(self, play: Playground, *rest: object) -> None:
        self.play, self.rest = play, rest

    def run(self, *arguments: object) -> Playground:
        done = CliRunner().invoke(app, ["demo", *map(str, arguments)])
        assert done.exit_code == 0, done.exception
        assert self.play is not None
        return self.play


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    made = Served()
    monkeypatch.setattr("lever_plus.hosts.demo.server.serve", made)
    return made


@pytest.fixture
def project(
    world: Data, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Paths:
    """A folder in which the pipeline has run, as far as the page needs it."""
    paths = Paths(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for split, examples in world.splits.items():
        paths.prepare.mkdir(parents=True, exist_ok=True)
        write_examples(paths.prepare / f"{split}.jsonl", examples)
    paths.source.mkdir()
    shutil.copy(world.folder / LATENT, paths.source)
    train = [example.question_id for example in world.splits["train"]]
    paths.pools.parent.mkdir()
    asked = [e.question_id for split in world.splits.values() for e in split]
    pools = {q: tuple(t for t in train[i % 12 :] if t != q)[:POOL] for i, q in enumerate(asked)}
    write_pools(paths.pools, pools)
    for method, stops in ((GRPO, None), (GRPO_STOP, 1)):
        made = make_checkpoint(tmp_path / method, world, folders, stops_after=stops)
        shutil.copytree(made, paths.trained(method, 1))
    monkeypatch.chdir(tmp_path)
    return paths


def test_without_options_it_shows_what_the_pipeline_trained(
    project: Paths, served: Served, world: Data
) -> None:
    play = served.run()
    assert served.rest == ("127.0.0.1", 7860, pytest.approx(0.06))
    assert play.selector.folder == Paths().trained(GRPO_STOP, 1)
    assert play.shots == 4
    assert [e.question_id for e in play.gallery] == [e.question_id for e in world.splits["test"]]
    query = play.gallery[3].query
    place = 24 + 8 + 3  # among all questions
    expected = [e.question_id for e in world.splits["train"]][place % 12 :][:POOL]
    assert [e.question_id for e in play.candidates(query)] == expected
    meaning = read_meanings(world.folder)[play.gallery[3].question_id]
    assert play.meaning(play.gallery[3]) == f"{meaning.attribute}, in {meaning.language.title()}"
    # Of a question of one's own: training examples, as many as a pool has, or all.
    own = play.candidates(play.query(query.image, "What colour is it?"))
    assert own == world.splits["train"]
    found = play.ask(query, 0.06)
    stopping = load_selector(project.trained(GRPO_STOP, 1), price=0.06)
    shown = found.of(STOPPING)
    assert shown is not None
    assert list(shown.examples) == stopping.select(query, play.candidates(query), 4)


def test_without_one_that_stops_it_shows_the_other(project: Paths, served: Served) -> None:
    shutil.rmtree(project.trained(GRPO_STOP, 1))
    play = served.run()
    assert served.rest[-1] is None
    assert play.selector.folder == Paths().trained(GRPO, 1)


def test_the_commands_of_the_guide_are_right(project: Paths, served: Served, asked: Asked) -> None:
    written_pool(project.root / "pool.jsonl", asked.pool)
    text = (ROOT / "docs" / "guides" / "demo.md").read_text(encoding="utf-8")
    commands = [shlex.split(command)[1:] for command in COMMAND.findall(text)]
    assert [served.run(*command).shots for command in commands] == [4, 2, 4]
    assert served.rest == ("127.0.0.1", 8000, 0.1)
    play = served.run(*commands[1])
    found = play.ask(play.gallery[0].query)
    shown = found.of(LEARNED)
    assert shown is not None
    chosen = play.selector.select(found.query, asked.pool, 2)
    assert [e.question_id for e in shown.examples] == [e.question_id for e in chosen]


def test_what_it_lacks_it_says_in_a_sentence(
    tmp_path: Path, checkpoint: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: object) -> str:
        done = CliRunner().invoke(app, ["demo", *map(str, arguments)])
        assert isinstance(done.exception, UserError)
        return str(done.exception)

    assert "outside a project, name --checkpoint, --pool and --vlm" in refused()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"))
    assert "holds no trained selector yet: run `make repro`" in refused()
    assert "holds no examples yet: run `make repro`" in refused("--checkpoint", checkpoint)
    pool = written_pool(tmp_path / "pool.jsonl", asked.pool)
    own = ("--checkpoint", checkpoint, "--pool", pool, "--vlm", "shipped:vlm")
    assert "a price has no effect" in refused(*own, "--price", "0.1")
    assert "can pick 1 to 2 demonstrations, but 3 were asked for" in refused(
        *own, "--shots", SHOTS + 1
    )
    assert "choose another --port or --host" in refused(*own, "--host", "192.0.2.1")
    assert "nowhere holds no model" in refused(*own[:4], "--vlm", "nowhere")
