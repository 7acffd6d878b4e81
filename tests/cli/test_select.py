"""`lever-plus select`: what it prints is what the selector chooses and what the VLM says."""

import json
from math import exp
from pathlib import Path
from shutil import copytree

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lever_plus import LivePool, Query, load_selector, open_vlm, read_pool
from lever_plus.cli.main import app
from lever_plus.data.examples import hashed_query
from lever_plus.errors import UserError
from lever_plus.house_words.maker import IMAGE_NAME
from lever_plus.vlm.request import Request
from tiny_checkpoint import make_checkpoint, pool_lines
from tiny_world import Folders, World

SHOTS = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, world: World, folders: Folders) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("selector"), world, folders)


@pytest.fixture
def pool(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool file without ids, in the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps(line) + "\n" for line in pool_lines(world.splits["train"][:10])]
    (tmp_path / "pool.jsonl").write_text("".join(lines))
    return tmp_path / "pool.jsonl"


@pytest.fixture
def query(world: World) -> Query:
    """A question that is in no pool."""
    return hashed_query(Query(world.splits["test"][0].image, "What colour is it?"))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["select", *map(str, arguments)])


def run(*arguments: object) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def asked(checkpoint: Path, query: Query) -> list[object]:
    given = [("--checkpoint", checkpoint), ("--image", query.image), ("--question", query.question)]
    return [part for pair in given for part in pair]


def test_json_has_the_choices_of_the_selector_with_their_probabilities(
    checkpoint: Path, pool: Path, query: Query
) -> None:
    said = json.loads(run(*asked(checkpoint, query), "--pool", pool, "--shots", SHOTS, "--json"))
    (expected,) = load_selector(checkpoint).select_all([query], [read_pool(pool)], SHOTS)
    assert said == {
        "image": query.image,
        "question": query.question,
        "demonstrations": [
            {
                "question_id": example.question_id,
                "image": example.image,
                "question": example.question,
                "answer": example.answer,
                "probability": pytest.approx(exp(log_prob), abs=1e-5),
            }
            for example, log_prob in zip(expected.examples, expected.log_probs, strict=True)
        ],
    }
    assert len({shown["question_id"] for shown in said["demonstrations"]}) == SHOTS
    assert all(0 < shown["probability"] < 1 for shown in said["demonstrations"])


def test_text_names_every_demonstration_in_order(
    checkpoint: Path, pool: Path, query: Query
) -> None:
    options = [*asked(checkpoint, query), "--pool", pool]
    found = json.loads(run(*options, "--json"))["demonstrations"]
    assert len(found) == 2  # the default
    assert run(*options).splitlines() == [
        f"{query.question} ({query.image})",
        *(
            f"  {number}. {shown['question']} {shown['answer']}  ({shown['image']})"
            f"  probability {shown['probability']:.3f}"
            for number, shown in enumerate(found, start=1)
        ),
    ]


@pytest.mark.parametrize(
    ("stops_after", "shots", "why"),
    [
        (0, 4, "shows 0 of at most 4: a demonstration is not worth 0.06"),
        (1, 4, "shows 1 of at most 4: another demonstration is not worth 0.06"),
        (3, 3, "shows all 3: each is worth 0.06"),
    ],
)
def test_with_a_price_it_says_how_many_are_shown_and_why(
    world: World,
    folders: Folders,
    pool: Path,
    query: Query,
    tmp_path: Path,
    stops_after: int,
    shots: int,
    why: str,
) -> None:
    stopping = make_checkpoint(tmp_path / "stopping", world, folders, stops_after=stops_after)
    options = [*asked(stopping, query), "--pool", pool, "--shots", shots]
    whole = json.loads(run(*options, "--json"))
    assert len(whole["demonstrations"]) == shots
    said = json.loads(run(*options, "--price", 0.06, "--json"))
    first = whole["demonstrations"][:stops_after]
    unit = {"price": 0.06, "price_per": "demonstration"}
    assert said == {**whole, "demonstrations": first, **unit, "asked_for": shots}
    lines = run(*options, "--price", 0.06).splitlines()
    assert (len(lines), lines[-1]) == (2 + stops_after, why)
    assert "was trained with prices from 0 to 0.2, not 0.3" in refused(*options, "--price", 0.3)


def test_a_price_is_refused_where_it_has_no_effect(
    checkpoint: Path, pool: Path, query: Query
) -> None:
    options = [*asked(checkpoint, query), "--pool", pool]
    assert "a price has no effect" in refused(*options, "--price", 0.0)


def test_the_vlm_is_asked_without_and_with_them(
    checkpoint: Path, pool: Path, query: Query, folders: Folders
) -> None:
    options = [*asked(checkpoint, query), "--pool", pool, "--answer", "--vlm", folders.vlm]
    said = json.loads(run(*options, "--json"))
    chosen = tuple(load_selector(checkpoint).select(query, read_pool(pool), 2))
    requests = [Request((), query), Request(chosen, query)]
    without, with_them = open_vlm(folders.vlm).answers(requests)
    assert (said["answer_without"], said["answer_with"]) == (without, with_them)
    assert run(*options).splitlines()[-2:] == [
        f"without demonstrations the VLM says: {without}",
        f"with them it says: {with_them}",
    ]


def test_a_pool_in_vqav2_format_gives_the_same_choice_with_its_own_ids(
    checkpoint: Path, pool: Path, query: Query, world: World
) -> None:
    files: dict[str, Path | str] = {
        "--pool-questions": world.folder / "questions_dev.json",
        "--pool-annotations": world.folder / "annotations_dev.json",
        "--pool-images": world.folder / "images" / "dev",
        "--image-name": IMAGE_NAME,
    }
    dev = world.splits["dev"]
    pool.write_text("".join(json.dumps(line) + "\n" for line in pool_lines(dev)))
    options = [*asked(checkpoint, query), "--json"]
    lines = json.loads(run(*options, "--pool", pool))["demonstrations"]
    vqa = json.loads(run(*options, *(part for pair in files.items() for part in pair)))
    ids = [shown["question_id"] for shown in vqa["demonstrations"]]
    assert ids == [dev[shown["question_id"] - 1].question_id for shown in lines]


def test_a_pool_that_is_kept_and_one_that_is_large(
    checkpoint: Path, pool: Path, query: Query, tmp_path: Path
) -> None:
    selector, options = load_selector(checkpoint), [*asked(checkpoint, query), "--json"]
    listed = read_pool(pool)
    LivePool(selector, listed, folder=tmp_path / "kept")
    whole = run(*options, "--pool", pool)
    assert run(*options, "--pool", tmp_path / "kept") == whole
    few = json.loads(run(*options, "--pool", pool, "--candidates", 3))
    expected = LivePool(selector, listed, candidates=3).select(query, 2)
    found = [each["question_id"] for each in few["demonstrations"]]
    assert found == [example.question_id for example in expected]
    assert few != json.loads(whole)
    assert run(*options, "--pool", pool, "--candidates", 0) == whole
    assert "holds no pool" in refused(*options, "--pool", checkpoint)


def test_encoded_features_are_kept_where_it_says(
    checkpoint: Path, pool: Path, query: Query, tmp_path: Path
) -> None:
    options = [*asked(checkpoint, query), "--pool", pool, "--json"]
    first = run(*options)
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    before = kept.stat().st_mtime_ns
    assert run(*options) == first
    assert kept.stat().st_mtime_ns == before
    run(*options, "--features", tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [kept.name]


def refused(*arguments: object) -> str:
    done = call(*arguments)
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def test_what_is_missing_or_too_much_is_one_sentence(
    checkpoint: Path, pool: Path, query: Query, tmp_path: Path
) -> None:
    options = asked(checkpoint, query)
    for wrong in ([], ["--pool", pool, "--pool-questions", pool], ["--pool-questions", pool]):
        assert refused(*options, *wrong).startswith("name the pool: give either --pool, or all of")
    assert "none.jsonl is missing" in refused(*options, "--pool", "none.jsonl")
    nowhere = asked(tmp_path / "nowhere", query)
    assert "nowhere holds no checkpoint" in refused(*nowhere, "--pool", pool)
    no_image = asked(checkpoint, Query("none.png", "What?"))
    assert "image none.png cannot be read" in refused(*no_image, "--pool", pool)
    assert "can pick 1 to 4 demonstrations, but 5 were asked for" in refused(
        *options, "--pool", pool, "--shots", 5
    )
    few = tmp_path / "few.jsonl"
    few.write_text(pool.read_text().partition("\n")[0])
    assert "but the pool has 1 examples with another image" in refused(*options, "--pool", few)
    assert "params.yaml is missing" in refused(*options, "--pool", pool, "--answer")


def test_an_encoder_that_moved_is_named_and_another_is_refused(
    checkpoint: Path, pool: Path, query: Query, folders: Folders, tmp_path: Path
) -> None:
    options = [*asked(checkpoint, query), "--pool", pool, "--json"]
    moved = copytree(folders.clip, tmp_path / "moved")
    assert run(*options, "--encoder", moved) == run(*options)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "logit_scale_init_value": 2.0}))
    assert "but this encoder is" in refused(*options, "--encoder", moved)
    copied = copytree(checkpoint, tmp_path / "copied")
    facts = json.loads((copied / "config.json").read_text())
    facts["encoder"]["path"] = "gone"
    (copied / "config.json").write_text(json.dumps(facts))
    said = refused(*asked(copied, query), "--pool", pool)
    assert said.startswith("the encoder is not at gone, where it was when")
    assert "--encoder" in said


@pytest.mark.parametrize("left_out", ["--checkpoint", "--image", "--question"])
def test_an_option_that_it_needs_is_named(
    checkpoint: Path, pool: Path, query: Query, left_out: str
) -> None:
    options = [*asked(checkpoint, query), "--pool", pool]
    place = options.index(left_out)
    done = call(*options[:place], *options[place + 2 :])
    assert done.exit_code == 2
    assert f"Missing option '{left_out}'" in " ".join(done.output.split())
