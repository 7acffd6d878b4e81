"""`lever-plus track`: what it says if there is no store, or none that it may serve."""

import socket

import pytest
from typer.testing import CliRunner

from lever_plus.cli.main import app
from lever_plus.cli.track import ui_environment, ui_options
from servers import free_port


def test_a_port_in_use_is_named_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///never.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = CliRunner().invoke(app, ["track", "ui", "--port", port])
    assert f"--port {port} can't be used" in str(said.exception)


@pytest.mark.parametrize("command", [["sync"], ["ui"]])
def test_a_server_that_is_down_is_named_without_its_password(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2hunter2@127.0.0.1:{port}")
    said = CliRunner().invoke(app, ["track", *command])
    assert f"127.0.0.1:{port} can't be reached" in str(said.exception)
    assert "hunter2" not in str(said.exception) + said.output


def test_the_ui_is_for_this_machine_and_its_command_has_no_password() -> None:
    options = ui_options(5001)
    assert options[options.index("--host") + 1] == "127.0.0.1"
    assert options[options.index("--allowed-hosts") + 1] == "127.0.0.1:5001,localhost:5001"
    environment = ui_environment("postgresql://me:hunter2@host/db")
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:hunter2@host/db"
    assert environment["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] == "false"
    assert not any("hunter2" in option for option in options)
