"""Which process writes a run, and whether it still lives: runs that a kill left are found so.

The first tags of a run name the process that writes it; its last tags say that it has ended. A run
without the last tags whose process is gone was cut off. The same holds for a logged model.
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
"""What happens to a run that was cut off. A training's run is closed: it shows how far it came. A
run made from files is deleted: it will be made again."""
ALIVE_S: Final = 60.0
"""Seconds between two signs of life of a run that is under way."""
STALE_S: Final = 900.0
"""A run of another machine without a sign of life for so many seconds is lost."""
CLOCK_S: Final = 5.0
"""How far the system's clock may be adjusted while a process runs, in seconds."""


def opening_tags(if_lost: str) -> dict[str, str]:
    """Return the first tags of a run or a logged model; `if_lost` is CLOSE or DELETE."""
    maker = json.dumps(name_process())
    return {STATE: UNDER_WAY, MAKER: maker, IF_LOST: if_lost, **alive_tags()}


def alive_tags() -> dict[str, str]:
    """Return the tag that is a sign of life: the time in seconds since 1970."""
    return {ALIVE: str(int(time.time()))}


def name_process(process: int | None = None) -> dict[str, Any]:
    """Return what identifies a process: its machine, its number, and when it started.

    The number is not enough: numbers are reused, and containers on one host may have equal ones.
    """
    found = _psutil().Process(process)
    return {"machine": machine(), "process": found.pid, "started": found.create_time()}


def machine() -> str:
    """Return what identifies this machine or container, whose processes this one can see.

    Host names are not unique, and neither is the id of the process namespace outside of containers;
    the kernel's boot id tells machines apart.
    """
    parts = [socket.gethostname()]
    processes, start = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        parts.append(str(processes.stat().st_ino))
        parts.append(start.read_text(encoding="ascii").strip())
    return "/".join(parts)


def is_gone(name: object) -> bool | None:
    """Whether a process has ended; None if this machine can't know.

    Args:
        name: What `name_process` returned, as the store has it; anybody may have written it.
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
    """Whether the process of this machine with this number still is the one that started then."""
    psutil = _psutil()
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(process)
        same: bool = abs(found.create_time() - started) < CLOCK_S
        return same and found.status() != psutil.STATUS_ZOMBIE
    return False


def is_lost(tags: Mapping[str, str]) -> bool:
    """Whether the process that writes a run or a logged model under way is gone.

    What is to be deleted if lost is written under a lock. If it names this process, which holds the
    lock now, an error has cut it off earlier.
    """
    try:
        maker = json.loads(tags[MAKER])
    except (KeyError, ValueError, RecursionError):
        maker = None  # written by somebody else: the sign of life decides
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
