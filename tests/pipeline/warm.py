"""Runs `lever-plus`, `dvc` and Python code as forks of a process that has done the imports.

A run of the pipeline starts two dozen processes, and each would take longer to import torch than
for its work on data as small as those of the tests. What is forked has imported nothing of the
project: that comes from the copy that the test runs in. Environment, folder, output and exit status
are those that the process would have had; its moments of being killed are the tests' of `zygote`.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve()
COMMANDS: Final = {"lever-plus": "lever_plus.cli.main", "dvc": "dvc", "warm-python": None}
"""What can be run, and its module; `warm-python` has the arguments of `python -c`."""
SLOW_TO_IMPORT: Final = (
    "dvc.cli.parser",
    "dvc.commands.repro",
    "dvc.repo",
    "dvc.stage.run",
    "scmrepo.git",
    "dvc_data.index",
    "dvc_objects",
    "imagehash",
    "matplotlib.pyplot",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "networkx",
    "numpy",
    "optuna",
    "pandas",
    "PIL.Image",
    "pyarrow.parquet",
    "pydantic",
    "rich.console",
    "ruamel.yaml",
    "safetensors.torch",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.decomposition",
    "tokenizers",
    "torch",
    "torch.nn",
    "torch.utils.data",
    "tqdm",
    "transformers",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llama.modeling_llama",
    "typer",
)
CLIENT: Final = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    job = {{"module": {module!r}, "argv": sys.argv, "folder": os.getcwd(), "env": dict(os.environ)}}
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps(job).encode() + b"\\n")
    status = server.makefile().readline()
sys.exit(int(status) if status else "the process ended without a word")
"""


@functools.cache
def folder_of_commands(vision: bool) -> Path:
    """Start the process; return a folder with the commands that run as its forks.

    Args:
        vision: Whether torchvision is there, see `beside_torch`.
    """
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    address = folder / "socket"
    paths = [str(HERE.parents[1] / "beside_torch")] if vision else []
    process = subprocess.Popen(
        [sys.executable, HERE, address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.kill)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for name, module in COMMANDS.items():
        text = CLIENT.format(python=sys.executable, address=str(address), module=module)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(stat.S_IRWXU)
    return folder


def warm_python(code: str, *arguments: str) -> list[str]:
    """Return the command that runs code as `python -c` does, in a fork."""
    return [str(folder_of_commands(vision=False) / "warm-python"), "-c", code, *arguments]


def serve(address: str) -> None:
    """Fork for every job; only a fork returns from here, with its job."""
    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    assert not any(name.partition(".")[0] == "lever_plus" for name in sys.modules)
    assert threading.active_count() == 1
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        os.write(1, b"ready\n")
        while True:
            client, _ = server.accept()
            if not os.fork():
                server.close()
                watch(client)
                return
            client.close()


def watch(client: socket.socket) -> None:
    """Fork again, for the job itself, which returns; tell the client how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile(encoding="utf-8") as lines:
        job = json.loads(lines.readline())
    if not (pid := os.fork()):
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)
        client.close()
        become(job)
        return
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    client.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def become(job: dict[str, Any]) -> None:
    """Take the folder, the environment and the command of a job."""
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["folder"])
    ours = {str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    sys.path = [each for each in sys.path if each not in ours]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = job["argv"]
    importlib.invalidate_caches()
    if job["module"]:
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
        return
    _, option, code, *rest = sys.argv
    sys.argv = [option, *rest]
    sys.path.insert(0, "")
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    serve(sys.argv[1])
