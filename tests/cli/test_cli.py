"""The CLI: fast help, sentences instead of tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest

CLI = [sys.executable, "-m", "lever_plus.cli.main"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_lists_every_stage_and_loads_no_heavy_library(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    for stage in ("prepare", "pretrain", "sft_data", "rl_data", "rce", "grpo", "evaluate"):
        assert stage in done.stdout
    heavy = "{'torch', 'mlflow', 'transformers'}"
    code = f"import sys, lever_plus.cli.main; print({heavy} & {{*sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "set()"


def test_an_error_is_one_sentence_without_traceback(tmp_path: Path) -> None:
    done = run("pool", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "lever-plus: params.yaml is missing: run from the project's root folder, or write it as "
        "the README says."
    )


@pytest.mark.parametrize(
    ("stage", "needs"),
    [("pool", "lever-plus prepare"), ("sft_data", "lever-plus prepare"), ("report", "evaluate")],
)
def test_a_stage_without_its_inputs_says_what_to_run(
    tmp_path: Path, stage: str, needs: str
) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"))
    done = run(stage, cwd=tmp_path)
    assert done.returncode == 1
    assert needs in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_training_seed_lists_the_known_ones(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"))
    done = run("rce", "--seed", "77", cwd=tmp_path)
    assert "no run rce/*/seed77" in done.stderr
