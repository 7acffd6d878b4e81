"""The CLI: fast help, sentences instead of tracebacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lever_plus.bench.growth import make_rl_data
from lever_plus.pipeline.paths import Paths
from pipeline.warm import folder_of_commands

FRESH = [sys.executable, "-m", "lever_plus.cli.main"]


def run(
    *arguments: str, cwd: Path, command: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = command or [str(folder_of_commands(vision=False) / "lever-plus")]
    return subprocess.run(
        [*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_lists_every_stage_and_loads_no_heavy_library(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path, command=FRESH)
    for stage in ("prepare", "embed", "sft_data", "rl_data", "rce", "grpo", "evaluate"):
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
        "lever-plus: params.yaml is missing: run from the project's root folder, where it is; "
        "docs/reference/params.md explains it."
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


@pytest.mark.parametrize("command", ["sft", "rl_data", "rce", "headroom"])
def test_an_unknown_training_seed_lists_the_known_ones(command: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"))
    done = run(command, "--seed", "77", cwd=tmp_path)
    assert "no training seed 77: training_seeds has 1, 2, 3." in done.stderr


SHOWN = """
import sys, warnings
from lever_plus.cli import main
from lever_plus.errors import UserError

def fail(*_arguments):
    warnings.warn("postgresql://lever:T0psecret@db is slow")
    raise {error}("no way to postgresql://lever:T0psecret@db (k3y-from-outside)")

main.app = fail
main.main()
"""


@pytest.mark.parametrize("error", ["UserError", "RuntimeError"])
def test_no_error_and_no_warning_shows_a_password(error: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SOME_API_KEY": "k3y-from-outside"}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN.format(error=error)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("postgresql://***@db") == 2
    assert "(***)" in done.stderr
    assert "T0psecret" not in done.stderr + done.stdout
    assert "k3y" not in done.stderr + done.stdout


def test_imported_rl_data_are_where_the_seed_s_rce_reads_them(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"))
    make_rl_data(tmp_path, 2)
    pool = ("--pool", "pools.jsonl")
    run("export-rl", ".", "rl/out.json", *pool, cwd=tmp_path)
    run("import-rl", "rl/out.json", *pool, "--seed", "2", cwd=tmp_path)
    assert Paths(tmp_path).records(2).is_file()
    assert not Paths(tmp_path).rl_data(1).exists()


def test_an_export_does_not_replace_what_it_exports(tmp_path: Path) -> None:
    pool, records = tmp_path / "pools.jsonl", tmp_path / "rl" / "records.jsonl"
    records.parent.mkdir()
    for file in (pool, records):
        file.write_text("kept")
        given = ("export-rl", str(records.parent), str(file), "--pool", str(pool))
        said = f"{file} is the pool file, or is in the folder of the RL data: name a file elsewhere"
        assert said in run(*given, cwd=tmp_path).stderr
        assert file.read_text() == "kept"
