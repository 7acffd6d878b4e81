"""Peak memory of this process."""

import resource
import sys
from pathlib import Path
from typing import Final

STATUS: Final = Path("/proc/self/status")


def peak_rss_mb() -> int:
    """Return the largest resident size of this process so far, in MB.

    On Linux it comes from /proc, because `getrusage` of a child process begins with the peak of its
    parent.
    """
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)
