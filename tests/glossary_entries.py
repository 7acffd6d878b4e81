"""Which entry of the glossary a metric falls under."""

import re
from typing import Final

from lever_plus.tracking.glossary import GLOSSARY

PARTS: Final = {"t": r"\d+", "k": r"\d+", "bound": "(low|high)", "method": r"[\w.-]+?"}


def explained(metric: str) -> str | None:
    """Return the longest entry that a metric falls under, None if there is none."""
    longest_first = sorted(GLOSSARY, key=len, reverse=True)
    return next((name for name in longest_first if _pattern(name).fullmatch(metric)), None)


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"<(\w+)>", name)
    return re.compile(
        "".join(PARTS[part] if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
    )
