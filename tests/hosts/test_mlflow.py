"""A selector is a model of MLflow: loaded by name, served by MLflow's own server."""

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from hosts.conftest import Asked
from lever_plus import open_vlm
from lever_plus.data.examples import Example
from lever_plus.data.images import image_url
from lever_plus.errors import UserError
from lever_plus.hosts.mlflow import Options, Series, log_model, save_model
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.tracking.registry import CHAMPION, MODEL, Selectors
from lever_plus.tracking.runs import sync
from lever_plus.tracking.training_run import TrainingRun
from lever_plus.vlm.request import Request
from servers import free_port, wait_until_healthy
from tiny_world import ROOT, Folders
from trained_selector import SHOTS, write_checkpoint

GUIDE = ROOT / "docs" / "guides" / "mlflow.md"
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(trained: LearnedSelector, folders: Folders, asked: Asked, tmp_path_factory: Any) -> Path:
    """A model; the checkpoint that it was made of is gone."""
    made: Path = tmp_path_factory.mktemp("model")
    checkpoint = write_checkpoint(trained, folders, made / "checkpoint")
    save_model(made / "model", checkpoint, asked.pool, Options(shots=SHOTS))
    shutil.rmtree(checkpoint)
    return made / "model"


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return mlflow.pyfunc.load_model(str(folder))


def rows(asked: Asked, count: int, **more: object) -> Rows:
    """Return questions as a client asks them: an image as a path, a data URL or base64 in turn."""
    found = []
    for number, query in enumerate(asked.queries[:count]):
        whole = base64.b64encode(Path(query.image).read_bytes()).decode()
        image = (query.image, f"data:image/png;base64,{whole}", whole)[number % 3]
        found.append({"image": image, "question": query.question, **more})
    return found


def ids(asked: Asked, count: int = 200) -> list[list[int]]:
    return [[e.question_id for e in chosen] for chosen in asked.chosen[:count]]


def chosen(reply: Any) -> list[list[int]]:
    return [[each.question_id for each in row.demonstrations] for row in reply]


def test_200_unseen_queries_get_the_demonstrations_of_the_selector(
    model: Any, asked: Asked
) -> None:
    reply = model.predict(rows(asked, 200))
    assert chosen(reply) == ids(asked)
    first, example = reply[0].demonstrations[0], asked.chosen[0][0]
    shown = (first.image, first.question, first.answer)
    assert shown == (image_url(example.image), example.question, example.answer)
    assert 0 < first.probability <= 1
    assert reply[0].answer is None


def test_a_request_may_bring_a_pool_and_a_number_of_shots(model: Any, asked: Asked) -> None:
    pool = asked.pool[:8]
    own = [{"image": e.image, "question": e.question, "answer": e.answer} for e in pool]
    (one, other), three = rows(asked, 2), rows(asked, 3, pool=own, shots=1)
    mixed = model.predict([one, *three, other])
    assert chosen([mixed[0], mixed[4]]) == ids(asked, 2)
    for row in mixed[1:4]:
        (shown,) = row.demonstrations
        example = pool[shown.question_id - 1]
        assert (shown.question, shown.answer) == (example.question, example.answer)
        assert shown.image == example.image


def test_nothing_is_pickled_and_rows_are_typed(folder: Path) -> None:
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert "mlflow_model.py" in names
    signature = mlflow.models.get_model_info(str(folder)).signature
    (asked,), (said,) = signature.inputs.to_dict(), signature.outputs.to_dict()
    assert asked["properties"]["image"] == {"type": "string", "required": True}
    assert asked["properties"]["pool"]["required"] is False
    assert said["properties"]["demonstrations"]["type"] == "array"


def test_a_model_is_enough_by_itself(folder: Path, model: Any, asked: Asked) -> None:
    """Its pool holds the images, not their paths; its example is a request."""
    pool = (folder / "artifacts" / "pool.jsonl").read_text()
    assert str(Path(asked.pool[0].image).parent) not in pool
    assert len(model.predict(model.input_example)[0].demonstrations) == SHOTS


@pytest.mark.slow
def test_with_a_vlm_it_answers_as_that_does_after_these_demonstrations(
    folder: Path, asked: Asked
) -> None:
    config = {"vlm": {"model": "shipped:vlm", "max_new_tokens": 1}}
    model = mlflow.pyfunc.load_model(str(folder), model_config=config)
    found = [row.answer for row in model.predict(rows(asked, 6))]
    requests = [Request(c, q) for c, q in zip(asked.chosen[:6], asked.queries, strict=False)]
    assert found == open_vlm("shipped:vlm", max_new_tokens=1).answers(requests)
    assert any(found)


BAD = [
    ({"image": None}, '"image" is missing: every question needs an image'),
    ({"question": None}, '"question" is missing'),
    ({"question": " "}, '"question" has no text'),
    ({"image": "What is in the picture?"}, "cannot be read"),
    ({"image": "https://example.org/a.png"}, "nothing is downloaded"),
    ({"image": "data:image/png;base64,@@"}, "is not the data URL of an image"),
    (
        {"shots": 9},
        "this selector can pick 1 to 2 demonstrations, but 9 were asked for: ask for 1 to 2",
    ),
    ({"pool": []}, "use a larger pool, or fewer shots"),
    ({"pool": [{"image": "gone.png", "question": "a", "answer": "b"}]}, "image gone.png cannot be"),
    ({"shot": 2}, "Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("changed", "said"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_what_cannot_be_asked_is_an_error_of_mlflow(
    changed: dict[str, Any], said: str, model: Any, asked: Asked
) -> None:
    row = {k: v for k, v in {**rows(asked, 1)[0], **changed}.items() if v is not None}
    with pytest.raises(MlflowException) as caught:
        model.predict([row])
    assert said in caught.value.message
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_vlm_that_fails_is_no_fault_of_the_request(folder: Path, asked: Asked) -> None:
    """The server that is to answer knows no request at all."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            vlm = {"model": "m", "url": f"http://127.0.0.1:{server.server_port}/v1"}
            model = mlflow.pyfunc.load_model(str(folder), model_config={"vlm": vlm})
            with pytest.raises(MlflowException, match="501") as caught:
                model.predict(rows(asked, 1))
        finally:
            server.shutdown()
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_what_is_no_model_is_refused(checkpoint: Path, asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the pool is empty"):
        save_model(tmp_path / "a", checkpoint, [])
    with pytest.raises(UserError, match=r"image gone\.png|gone\.png is missing"):
        save_model(tmp_path / "b", checkpoint, [Example("gone.png", "What?", "red")])
    with pytest.raises(UserError, match="use a larger pool, or fewer shots"):
        save_model(tmp_path / "b", checkpoint, asked.pool[:SHOTS])
    with pytest.raises(UserError, match="can pick 1 to 2 demonstrations, but 3 were asked for"):
        save_model(tmp_path / "b", checkpoint, asked.pool, Options(shots=3))
    with pytest.raises(UserError, match="holds no checkpoint"):
        save_model(tmp_path / "c", tmp_path / "nothing", asked.pool)
    series = Series(asked.pool)
    series.save(tmp_path / "d", checkpoint, run_id="r", model_id="m-1")
    assert Model.load(tmp_path / "d").model_id == "m-1"
    with pytest.raises(UserError):  # not the first one's files
        series.save(tmp_path / "e", tmp_path / "nothing", run_id="r", model_id="m-2")
    with pytest.raises(UserError, match="vlm: .*open_vlm"):
        mlflow.pyfunc.load_model(str(tmp_path / "d"), model_config={"vlm": {"modl": "x"}})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def champion(checkpoint: Path, asked: Asked, params: Any, tmp_path: Path, store: str) -> str:
    """The name of a model: of a training whose selector `track sync` has registered."""
    assert store
    run = TrainingRun("grpo", "grpo", 1, checkpoint / "history.jsonl")
    run.history.write_text('{"step": 0, "dev_reward": 0.5, "seed": 1}\n')
    series = Series(asked.pool)

    def save(of: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
        series.save(path, of.checkpoint.parent, run_id=run_id, model_id=model_id)

    nothing = tmp_path / "nothing"
    done = sync(params, [run], nothing, nothing, selectors=Selectors([run], run, save))
    assert done.registered == 1
    return f"models:/{MODEL}@{CHAMPION}"


def post(address: str, payload: object) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(payload).encode() if not isinstance(payload, bytes) else payload,
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.long
def test_the_champion_is_loaded_and_served_by_its_name(
    champion: str, store: str, asked: Asked, tmp_path: Path
) -> None:
    model = mlflow.pyfunc.load_model(champion)
    assert chosen(model.predict(rows(asked, 200))) == ids(asked)
    port, log = free_port(), tmp_path / "served.log"
    (command,) = re.findall(r"^(mlflow models serve .*) -p 5001$", GUIDE.read_text(), re.MULTILINE)
    assert champion in command
    config = json.dumps({"vlm": {"model": "shipped:vlm", "max_new_tokens": 1}})
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store,
        "SERVING_MODEL_CONFIG": config,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", *shlex.split(command), "-p", str(port)],
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        ) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(address, log, process=process)
            example = Path(mlflow.artifacts.download_artifacts(champion)) / (
                "serving_input_example.json"
            )
            status, reply = post(address, example.read_bytes())
            assert status == 200
            assert len(reply["predictions"][0]["demonstrations"]) == SHOTS
            found, asks = [], rows(asked, 200)
            for start in range(0, 200, 50):
                status, reply = post(address, {"inputs": asks[start : start + 50]})
                assert status == 200
                found += reply["predictions"]
            assert [[d["question_id"] for d in row["demonstrations"]] for row in found] == ids(
                asked
            )
            assert any(row["answer"] for row in found)
            for changed, sentence in BAD:
                row = {k: v for k, v in {**asks[0], **changed}.items() if v is not None}
                status, reply = post(address, {"inputs": [row]})
                assert (status, reply["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
                assert sentence in reply["message"]
        finally:
            # A shell of MLflow's started workers: all of it ends.
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_user_logs_one_with_a_pool_of_their_own(checkpoint: Path, asked: Asked) -> None:
    info = log_model(checkpoint, asked.pool[:6], Options(shots=1), registered_model_name="cards")
    model = mlflow.pyfunc.load_model("models:/cards/1")
    (row,) = model.predict(rows(asked, 1))
    assert len(row.demonstrations) == 1
    assert info.model_id
    assert mlflow.active_run() is None
