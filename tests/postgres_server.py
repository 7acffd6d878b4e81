"""A real PostgreSQL server for tests, from Debian's package."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from servers import free_port


@pytest.fixture
def postgres() -> Iterator[str]:
    """A real PostgreSQL server on a free port of loopback, not as root: the URL of `study`.

    There is a second database, `mlflow`.
    """
    binaries = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
    found = shutil.which("pg_ctl") or (binaries and str(binaries / "pg_ctl"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    tools = Path(found).resolve().parent
    root = os.geteuid() == 0
    if root and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and runuser is not there")
    data = Path("/tmp") / f"lever-plus-postgres-{uuid.uuid4().hex}"
    as_user = ["runuser", "-u", "postgres", "--"] if root else []

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, cwd="/tmp")

    try:
        run(str(tools / "initdb"), "-D", str(data), "-U", "lever", "--auth=trust")
        port = free_port()
        options, log = f"-p {port} -c listen_addresses=127.0.0.1 -k {data}", f"{data}/log"
        run(str(tools / "pg_ctl"), "-D", str(data), "-o", options, "-l", log, "-w", "start")
        for name in ("study", "mlflow"):
            run(str(tools / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "lever", name)
        yield f"postgresql+psycopg://lever@127.0.0.1:{port}/study"
    finally:
        with suppress(subprocess.CalledProcessError):
            run(str(tools / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
        run("rm", "-rf", str(data))
