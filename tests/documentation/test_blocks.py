"""Every block on a page is run by a test, or says why not; every command in it exists."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from documentation.blocks import Block, Command, all_blocks, blocks_of, commands_of
from lever_plus.cli.main import app
from lever_plus.config.file import load_params, load_with_preset
from lever_plus.files.yaml_files import read_yaml
from tiny_world import ROOT

BLOCKS = all_blocks()
SHOWN = {"", "text", "json", "jsonl", "csv"}
"""What is looked at, not typed."""
GUIDES = "docs/guides/"
RUN = {"bash": GUIDES, "python": "", "yaml": ""}
"""{language: pages whose blocks are run}: those of guides by tests/hosts/test_guides.py."""
CONSOLE = [block for block in BLOCKS if block.kind in ("console", "sh")]

RUN_HERE = (
    *("lever-plus results", "lever-plus power", "lever-plus doctor", "lever-plus params"),
    *("lever-plus store", "lever-plus metric check", "lever-plus import-vqa", "lever-plus select"),
)
"""Commands that `test_console.py` runs as they are written."""
END_TO_END = "tests/pipeline/test_end_to_end.py"
STAGES = (
    *("prepare", "in_context", "embed", "pool", "sft_data", "sft"),
    *("rl_data", "rce", "grpo", "evaluate", "report"),
)
RUN_ELSEWHERE = {
    **{f"lever-plus {stage}": (END_TO_END, 'dvc("repro")') for stage in STAGES},
    "lever-plus show": (END_TO_END, '"show"'),
    "lever-plus track sync": (END_TO_END, '"track", "sync"'),
    "lever-plus study": (END_TO_END, '"study", "run"'),
    "lever-plus ablate": (END_TO_END, "ablations/dvc.yaml"),
    "lever-plus track ui": ("tests/tracking/test_ui.py", "ui_options"),
    "lever-plus headroom": ("tests/cli/test_cli.py", "headroom"),
    "lever-plus demo": ("tests/hosts/test_demo_command.py", '"demo"'),
    "lever-plus serve": ("tests/hosts/test_serving.py", '"serve"'),
    "lever-plus import-rl": ("tests/pipeline/test_real_files.py", '"import-rl"'),
    "lever-plus export-rl": ("tests/pipeline/test_real_files.py", '"export-rl"'),
    "lever-plus deps": ("Makefile", "lever-plus deps"),
    "dvc repro": (END_TO_END, 'dvc("repro")'),
    "dvc push": (END_TO_END, 'dvc("push")'),
    "dvc pull": (END_TO_END, 'dvc("pull")'),
    "dvc remote": (END_TO_END, '"remote"'),
    "dvc metrics show": (END_TO_END, '"metrics", "show"'),
    "dvc plots show": (END_TO_END, '"plots", "show"'),
    "docker": ("tests/docker/test_docker_images.py", "compose"),
    "mlflow": ("tests/hosts/test_mlflow.py", "mlflow"),
    "python -m lmms_eval": ("tests/hosts/lmms_eval", "lmms_eval"),
    "python examples": ("tests/test_examples.py", "examples"),
}
"""{how a command begins: the test that runs it, and what shows that it does}."""
CHECKED = {
    "pip": "it downloads packages",
    "git": "it changes the reader's repository",
    "make": "its commands are those of the pipeline, or run the tests",
    "dvc": "a command of DVC's own",
    "lever-plus bench": "it measures for minutes",
    "lever-plus world": "it trains for 40 minutes",
}
"""{how a command begins: why it is not run, though it is checked that it exists}."""
AROUND = {
    "source",
    "cd",
    "head",
    "sudo",
    "mkdir",
    "cp",
    "cat",
    "export",
    "curl",
    "ls",
    "printf",
    "sed",
    "echo",
    "unset",
}
"""What is there on every machine."""

MADE = (
    *("artifacts/", "cache/", "metrics/", "plots/", "search/results", ".venv/", "site/", "mlflow"),
    *("out/", "champion/", "dvc_plots/"),
)
"""What the pipeline and the commands make."""
YOURS = (
    *("pool.jsonl", "photo.png", "train.csv", "test.csv", "questions.jsonl", "other.sqlite"),
    *("models/", "data/", "tasks", "results", "my-pool", "my_", "/mnt/", "lmms_eval"),
    *("/path/to/", "/out"),
)
"""What a reader has, or names."""
ENDINGS = "yaml|json|jsonl|csv|png|sqlite|py|txt|md|db|html|toml"
FILE = re.compile(rf"[\w.@/~-]*(/[\w.@*~-]+|\.({ENDINGS}))/?")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    if block.why or block.kind in SHOWN:
        return
    if block.kind in ("console", "sh"):
        lacking = [each.line for each in commands_of(block.text) if _how(each) is None]
        assert not lacking, f"no test runs this: {lacking}; write <!-- not run: why --> before it"
        return
    assert block.kind in RUN, (
        "write <!-- not run: why --> before it, or name a language that is run"
    )
    where = RUN[block.kind]
    assert block.page.startswith(where), f"{block.kind} blocks run in {where} alone"


def _how(command: Command) -> str | None:
    """Return what runs a command, or why it need not run; None if nothing is known."""
    known = {
        **dict.fromkeys(AROUND, "it is on every machine"),
        **CHECKED,
        **{begin: test for begin, (test, _) in RUN_ELSEWHERE.items()},
        **dict.fromkeys(RUN_HERE, "test_console.py"),
    }
    line = f"{command.line} "
    fitting = [begin for begin in known if line.startswith((f"{begin} ", begin + "/"))]
    return known[max(fitting, key=len)] if fitting else None


@pytest.mark.parametrize("begin", RUN_ELSEWHERE)
def test_what_runs_a_command_is_there_and_names_it(begin: str) -> None:
    place, shown = RUN_ELSEWHERE[begin]
    path = ROOT / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert any(shown in file.read_text("utf-8") for file in files), place


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.place)
def test_the_commands_of_a_block_exist_with_their_options(block: Block) -> None:
    for command in commands_of(block.text):
        program = CHECKS.get(command.words[0])
        if program:
            program(command.words[1:])
        else:
            assert _how(command) or block.why, f"unknown program: {command.line}"


def _lever_plus(words: list[str]) -> None:
    group = command = typer.main.get_command(app)
    name = "lever-plus"
    while words and words[0] in getattr(command, "commands", {}):
        command, name = command.commands[words[0]], f"{name} {words[0]}"
        words = words[1:]
    assert command is not group or words[:1] in ([], ["--help"]), f"no command {words}"
    if "--help" not in words:
        command.make_context(name, list(words))


def _make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    assert [name for name in targets if not re.search(rf"^{name}:", text, re.MULTILINE)] == []


def _dvc(words: list[str]) -> None:
    from dvc.cli.parser import get_main_parser

    get_main_parser().parse_args(words)


def _pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = extras["optional-dependencies"].keys()
    for word in words:
        found = re.fullmatch(r"(?:(?:/.*/)?lever-plus|\.)\[(.*)\]", word)
        assert not found or set(found[1].split(",")) <= known, word


def _docker(words: list[str]) -> None:
    if words[0] != "compose":
        return
    services = read_yaml(ROOT / "compose.yaml", "")["services"]
    started = words[words.index("up") + 1 :] if "up" in words else []
    named = [word for word in started if word.isalpha()]
    assert [name for name in named if name not in services] == []


CHECKS = {"lever-plus": _lever_plus, "make": _make, "dvc": _dvc, "pip": _pip, "docker": _docker}


@pytest.mark.parametrize("page", sorted({block.page for block in CONSOLE}))
def test_the_files_that_commands_name_are_there_or_are_made(page: str) -> None:
    made: list[str] = []
    lost = []
    for block in CONSOLE:
        for command in commands_of(block.text) if block.page == page else ():
            made += command.written
            if command.words[0] in ("mkdir", "cp"):
                made += [command.words[-1]]
            after = zip(command.words, command.words[1:], strict=False)
            made += [word for option, word in after if option in ("--out", "-d")]
            lost += [
                f"{block.place}: {word}"
                for word in command.words[1:]
                if FILE.fullmatch(word)
                and not word.startswith((*MADE, *YOURS, *made))
                and not (ROOT / word).exists()
                and word != "user/name"
            ]
    assert lost == [], "neither in the repository nor made by a command on this page"


OTHERS = [block for block in BLOCKS if not block.page.startswith(GUIDES) and not block.why]


@pytest.mark.parametrize(
    "block", [each for each in OTHERS if each.kind == "yaml"], ids=lambda block: block.place
)
def test_the_settings_on_a_page_are_valid(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the modules that the page's Python blocks are."""
    for module, name in re.findall(r"(my_\w+):(\w+)", block.text):
        own = [each.text for each in OTHERS if each.page == block.page and each.kind == "python"]
        code = "\n".join(own) or f"def {name}(*_): ..."
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    preset = tmp_path / "preset.yaml"
    preset.write_text(block.text, encoding="utf-8")
    assert load_with_preset(ROOT / "params.yaml", preset) != load_params(ROOT / "params.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({each.page for each in OTHERS if each.kind == "python"}))
def test_the_snippets_of_a_page_run(page: str, reader: Path) -> None:
    text = "\n".join(each.text for each in OTHERS if (each.page, each.kind) == (page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=reader, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_mark_belongs_to_the_next_block_alone() -> None:
    text = "<!-- not run: needs a GPU -->\n```console\nmake repro\n```\n\n```py\nx\n```\n"
    first, second = blocks_of(text, "page.md")
    assert (first.why, first.line, first.kind) == ("needs a GPU", 2, "console")
    assert (second.why, second.kind, second.text) == (None, "py", "x\n")


def test_commands_are_taken_apart_as_a_shell_does() -> None:
    text = (
        "A=1 make repro && make test  # both\n"
        "cat > tiny.yaml <<'END'\nlever-plus nothing\nEND\n"
        'lever-plus select --question "What is it? # no" \\\n    --shots 2 | tee x.txt\n'
    )
    assert commands_of(text) == [
        Command(["make", "repro"], []),
        Command(["make", "test"], []),
        Command(["cat"], ["tiny.yaml"]),
        Command(["lever-plus", "select", "--question", "What is it? # no", "--shots", "2"], []),
        Command(["tee", "x.txt"], []),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "lever-plus resluts",
        "lever-plus select --checkpoint a --image b --question c --poool d",
        "lever-plus power --delta many",
        "lever-plus bench scoring --ablation",
        "make reproduce",
        "pip install 'lever-plus[everything]'",
        "pip install '/path/to/lever-plus[everything]'",
        "docker compose up pipelines",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    (command,) = commands_of(line)
    with pytest.raises((AssertionError, typer._click.exceptions.UsageError)):
        CHECKS[command.words[0]](command.words[1:])
