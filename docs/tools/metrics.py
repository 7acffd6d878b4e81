"""The page of all metrics that MLflow holds, from the glossary in the code."""

from typing import Final

from tables import code, table

from lever_plus.tracking.glossary import GLOSSARY

OPENING: Final = """# Metrics

What MLflow holds of each run. `<...>` is a part that varies: `<t>` a step of the pointer, `<k>` a
number of demonstrations, `<bound>` `low` or `high`, `<method>` a method. A line of
`history.jsonl` has the metrics of `train/` without that prefix, and `dev_reward`, which is
`dev/reward` in MLflow. The files in `metrics/` are described in [files](files.md#metrics).
"""
PARTS: Final = {
    "dev": "Chosen on dev",
    "train": "Training",
    "eval": "Evaluation",
    "curve": "Curves",
    "delta": "Differences between methods",
    "scoring": "Asking the VLM",
    "study": "Studies",
}


def page() -> str:
    """Return the page."""
    parts = [OPENING]
    for prefix, title in PARTS.items():
        named = {name: text for name, text in GLOSSARY.items() if name.startswith(f"{prefix}/")}
        rows = [[code(name), text] for name, text in named.items()]
        parts += [f"## {title}: `{prefix}/`", "", table(["metric", "meaning"], rows), ""]
    return "\n".join(parts).rstrip() + "\n"
