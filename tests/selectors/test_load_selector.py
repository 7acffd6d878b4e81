"""A saved selector chooses the same wherever it is loaded, whatever ids the examples have."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from lever_plus import load_selector
from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.policy.checkpoint import CheckpointConfig
from lever_plus.selectors.base import Selection
from lever_plus.selectors.learned import LearnedSelector
from tiny_world import Folders, World

SHOTS = 2


@pytest.fixture(scope="module")
def asked(world: World) -> tuple[list[Query], list[list[Example]]]:
    """Dev queries, alternating with training examples."""
    train = world.splits["train"]
    queries = [example.query for example in world.splits["dev"]]
    return queries, [train[number : number + 12] for number in range(len(queries))]


def assert_same(found: list[Selection], expected: list[Selection]) -> None:
    """Compare the shown examples and the log-probabilities, but not the ids."""
    for one, other in zip(found, expected, strict=True):
        assert contents(one) == contents(other)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def contents(selection: Selection) -> list[tuple[str, str, str]]:
    return [(e.image_sha256, e.question, e.answer) for e in selection.examples]


@pytest.mark.invariant
def test_it_selects_for_questions_whose_ids_it_does_not_know(
    trained: LearnedSelector, checkpoint: Path, asked: tuple[list[Query], list[list[Example]]]
) -> None:
    """Ids and hashes are not needed: path, question and answer are enough."""
    queries, pools = asked
    expected = trained.select_all(queries, pools, SHOTS)
    bare = [Query(query.image, query.question) for query in queries]
    new = [[Example(e.image, e.question, e.answer) for e in pool] for pool in pools]
    selector = load_selector(checkpoint)
    assert_same(selector.select_all(bare, new, SHOTS), expected)
    assert len({tuple(contents(selection)) for selection in expected}) > 2
    alone = selector.select(bare[0], new[0], SHOTS)
    assert [e.question for e in alone] == [e.question for e in expected[0].examples]


@pytest.mark.invariant
def test_it_selects_the_same_after_it_was_copied_with_its_encoder(
    trained: LearnedSelector,
    checkpoint: Path,
    folders: Folders,
    asked: tuple[list[Query], list[list[Example]]],
    tmp_path: Path,
) -> None:
    moved = copytree(checkpoint, tmp_path / "elsewhere" / "selector")
    clip = copytree(folders.clip, tmp_path / "elsewhere" / "clip")
    selector = load_selector(str(moved), str(clip), batch_size=3, features=tmp_path / "kept")
    assert_same(selector.select_all(*asked, SHOTS), trained.select_all(*asked, SHOTS))
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".sqlite"]


def name_encoder(checkpoint: Path, path: str) -> None:
    """Make a checkpoint say that its encoder was elsewhere when it was trained."""
    config = checkpoint / "config.json"
    facts = CheckpointConfig.model_validate_json(config.read_text(encoding="utf-8"))
    facts = facts.model_copy(update={"encoder": facts.encoder.model_copy(update={"path": path})})
    config.write_text(facts.model_dump_json(), encoding="utf-8")


def test_one_trained_with_the_shipped_encoder_needs_the_package_alone(
    trained: LearnedSelector,
    checkpoint: Path,
    folders: Folders,
    asked: tuple[list[Query], list[list[Example]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lever_plus.hub.folder.MODELS", tmp_path / "package")
    copytree(folders.clip, tmp_path / "package" / "clip")
    name_encoder(checkpoint, "shipped:clip")
    monkeypatch.chdir(tmp_path)
    found = load_selector(checkpoint).select_all(*asked, SHOTS)
    assert_same(found, trained.select_all(*asked, SHOTS))


def test_without_its_encoder_it_says_which_one_it_needs(
    trained: LearnedSelector, checkpoint: Path, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    name_encoder(checkpoint, gone)
    identity = trained.features._space.encoder[:12]
    with pytest.raises(
        UserError,
        match=rf"the encoder is not at {gone}, .*name its folder \(`encoder=...`, `--encoder`\)"
        rf". Its hash begins with {identity}",
    ):
        load_selector(checkpoint)
    with pytest.raises(UserError, match="other holds no model"):
        load_selector(checkpoint, tmp_path / "other")


@pytest.mark.invariant
def test_another_encoder_is_refused(checkpoint: Path, folders: Folders, tmp_path: Path) -> None:
    other = copytree(folders.clip, tmp_path / "clip")
    settings = other / "config.json"
    settings.write_text(settings.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="use the one that the selector was trained with"):
        load_selector(checkpoint, other)
    assert load_selector(checkpoint, folders.clip)


def test_more_shots_than_it_was_made_for_are_refused(checkpoint: Path, world: World) -> None:
    query = replace(world.splits["dev"][0].query, image_sha256="")
    with pytest.raises(
        UserError, match=f"can pick 1 to {SHOTS} demonstrations, but {SHOTS + 1} were asked for"
    ):
        load_selector(checkpoint).select(query, world.splits["train"], SHOTS + 1)
