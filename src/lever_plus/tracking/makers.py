"""Who makes a run, and whether that process is gone: what a kill leaves is found and cleared.

A run says from its first moment who makes it; its last tags say that it has ended. Whatever is
between the two when its process is gone was cut off.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lever_plus.errors import needs

STATE, MAKER, ALIVE, IF_LOST = "run.state", "run.maker", "run.alive", "run.if_lost"
UNDER_WAY, ENDED = "under way", "ended"
CLOSE, DELETE = "close", "delete"
"""What becomes of a run that is cut off: a training's shows how far it came, a projection goes."""
ALIVE_S: Final = 60.0
"""Between two signs of life of a run that is under way."""
STALE_S: Final = 900.0
"""Without a sign of life for so long, a run of another machine is lost."""
CLOCK_S: Final = 5.0
"""The system's clock may be set by so much while a process runs."""


def opening_tags(if_lost: str) -> dict[str, str]:
    """Return the first tags of a run."""
    maker = json.dumps(name_process())
    return {STATE: UNDER_WAY, MAKER: maker, IF_LOST: if_lost, **alive_tags()}


def alive_tags() -> dict[str, str]:
    """Return a sign of life."""
    return {ALIVE: str(int(time.time()))}


def name_process(process: int | None = None) -> dict[str, Any]:
    """Return what tells a process from all others: machine, number, and when it started.

    Containers may share a host's name and not its processes, and numbers are given again.
    """
    found = _psutil().Process(process)
    return {"machine": machine(), "process": found.pid, "started": found.create_time()}


def machine() -> str:
    """Return what tells the processes that this one can see from those of other machines.

    Hosts may share a name, and outside of containers all of them number their first set of
    processes alike; only the id of the kernel's start is a machine's own.
    """
    parts = [socket.gethostname()]
    processes, start = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        parts.append(str(processes.stat().st_ino))
        parts.append(start.read_text(encoding="ascii").strip())
    return "/".join(parts)


def is_gone(name: object) -> bool | None:
    """Whether a process (see `name_process`) has ended; None where that can't be known from here.

    Args:
        name: What was stored. Somebody else may have written it.
    """
    try:
        known: Any = name
        if known["machine"] != machine():
            return None
        process, started = int(known["process"]), float(known["started"])
        return not _is_running(process, started)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _is_running(process: int, started: float) -> bool:
    """Whether a process of this machine is still the one that it was."""
    psutil = _psutil()
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(process)
        same: bool = abs(found.create_time() - started) < CLOCK_S
        return same and found.status() != psutil.STATUS_ZOMBIE
    return False


def is_lost(tags: Mapping[str, str]) -> bool:
    """Whether nobody goes on with a run that is under way.

    What is deleted when it is lost is made under a lock: if its maker is this very process, which
    holds the lock now, it was cut off by an error.
    """
    try:
        maker = json.loads(tags[MAKER])
    except (KeyError, ValueError, RecursionError):
        maker = None  # tags of somebody else: the sign of life decides
    gone = is_gone(maker)
    if gone is not None:
        own = int(maker["process"]) == os.getpid() and tags.get(IF_LOST) == DELETE
        return own or gone
    try:
        return time.time() - float(tags[ALIVE]) > STALE_S
    except (KeyError, ValueError):
        return False


def _psutil() -> Any:
    with needs("tracking", "MLflow tracking"):
        import psutil

    return psutil
