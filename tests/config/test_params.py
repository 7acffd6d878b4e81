"""params.yaml: wrong keys and values stop the run with a sentence that helps."""

import re
from pathlib import Path

import pytest

from lever_plus.config.file import load_params, overlay
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from tiny_world import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return copy


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_the_project_s_params_are_valid(path: Path) -> None:
    params = load_params(path)
    assert params.pointer.shots == len(params.reward.shot_weights)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("kl_beta:", "kl_bta:", "unknown key grpo.kl_bta (did you mean kl_beta?)"),
        ("evaluate:", "evalute:", "unknown key evalute (did you mean evaluate?)"),
        ("policy: per_query", "policy: global", "pool.policy: input should be 'per_query' or"),
        ("shots: 4", "shots: 3", "needs one weight per shot"),
        ("sft_queries: 300", "sft_queries: 3000", "needs sft_queries <= rl_queries <= train"),
        ("size: 64", "size: 4", "pool.size must be larger than pointer.shots"),
        ("[0.25, 0.25, 0.25, 0.25]", "[0.0, 0.0, 0.0, 0.0]", "nothing would be learned"),
        ("seed: 1", "seed: [", "is not YAML"),
        ("  train: 2000", "  trainn: 2000", "data.source.trainn (did you mean train?)"),
        ("workers: 2", "wrokers: 2", "unknown key vlm.wrokers (did you mean workers?)"),
        ("image_size: 224", "image_size: 32", "data.source.image_size: input should be greater"),
        ("sampler: random", "sampler: texts", "pool.sampler: input should be 'random', 'text'"),
        ("policy: per_query\n  sampler: random", "policy: shared\n  sampler: text", "no one query"),
    ],
)
def test_a_mistake_is_explained(path: Path, before: str, after: str, message: str) -> None:
    change(path, before, after)
    with pytest.raises(UserError, match=re.escape(message)):
        load_params(path)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the project's root"):
        load_params(tmp_path / "params.yaml")


def test_an_overlay_changes_values_and_keeps_comments(path: Path) -> None:
    overlay(path, ROOT / "presets" / "smoke.yaml")
    params = load_params(path)
    assert (params.data.source.train, params.training_seeds) == (240, [1])
    assert params.rl_data.samples == {"1.0": 2}
    assert "# house words, the embedded data set" in path.read_text(encoding="utf-8")


def test_a_list_on_one_line_stays_on_one_line(path: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        "reward:\n  shot_weights:\n  - 0.5\n  - 0.25\n  - 0.125\n  - 0.125\n"
        "rl_data:\n  scores:\n  - gt_prob\n"
    )
    expected = path.read_text(encoding="utf-8").replace(
        "shot_weights: [0.25, 0.25, 0.25, 0.25]", "shot_weights: [0.5, 0.25, 0.125, 0.125]"
    )
    expected = expected.replace("scores: []", "scores: [gt_prob]")
    overlay(path, preset)
    assert path.read_text(encoding="utf-8") == expected


def test_an_overlay_of_another_kind_replaces_its_section(path: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        "vlm: {kind: openai, url: 'http://127.0.0.1:1/v1', model: m, revision: r, dtype: bfloat16, "
        "instruction: '', max_new_tokens: 5, concurrency: 8, timeout_s: 60.0, patience_s: 2.0, "
        "canary: mark}\n"
    )
    overlay(path, preset)
    assert load_params(path).vlm.model_dump()["model"] == "m"


FILES = """
data:
  source:
    kind: vqa_files
    root: data
    answers_per_question: 10
    allow_fallback: false
    train: &split {questions: q, annotations: a, images: i, image_name: "{image_id}", sample: null}
    dev: {held_out: 5}
    test: *split
"""


def test_files_need_models_of_their_own(path: Path, tmp_path: Path) -> None:
    """The shipped models know only house words: their answers to VQAv2 would mean nothing."""
    preset = tmp_path / "preset.yaml"
    for models in ("", "vlm: {path: vlm}\n", "embed: {path: clip}\n"):
        preset.write_text(FILES + models)
        with pytest.raises(UserError, match=r"set embed.path, and vlm.path or a server"):
            overlay(path, preset)
    models = "vlm: {path: vlm}\nembed: {path: clip}\n"
    preset.write_text(FILES + models)
    with pytest.raises(UserError, match=r"pool\.scarcity .* embedded data set: set it to 0\.0"):
        overlay(path, preset)
    preset.write_text(FILES + models + "pool: {scarcity: 0.0}\n")
    overlay(path, preset)
    assert load_params(path).embed.path == "clip"


@pytest.mark.parametrize("section", ["vlm", "embed"])
def test_null_is_no_model_and_the_shipped_ones_are_named(
    path: Path, tmp_path: Path, section: str
) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"{section}: {{path: null}}\n")
    with pytest.raises(UserError, match=rf"{section}\.path: it names no model: .*shipped:vlm"):
        overlay(path, preset)


def test_a_bad_overlay_leaves_the_file_alone(path: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("grpo: {roundz: 1}\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"grpo.roundz \(did you mean rounds\?\)"):
        overlay(path, preset)
    assert path.read_bytes() == before


def test_params_are_frozen(params: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2  # type: ignore[misc]


def test_a_list_in_place_of_a_number_is_explained(path: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("grpo: {epochs: [1, 2]}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"grpo\.epochs"):
        overlay(path, preset)


def test_a_preset_changes_its_own_lines_alone(path: Path, tmp_path: Path) -> None:
    before = path.read_text(encoding="utf-8").splitlines()
    preset = tmp_path / "preset.yaml"
    preset.write_text("grpo: {epochs: 7}\n", encoding="utf-8")
    overlay(path, preset)
    after = path.read_text(encoding="utf-8").splitlines()
    changed = [line for old, line in zip(before, after, strict=True) if old != line]
    assert changed == ["  epochs: 7 # passes over the candidates of a round"]
