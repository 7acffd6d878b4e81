"""Stage report: summary and histories -> tables, plot data and the HTML page."""

import json

from rich.console import Console

from lever_plus.errors import UserError
from lever_plus.params import Params
from lever_plus.report import plots, tables
from lever_plus.report.page import page, table
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome
from lever_plus.tracking.history import Row, read_history

TRACES = {
    "dev_reward": "Realised reward on dev",
    "kl": "KL to the reference, nats per pointer",
    "reward": "Mean reward of the candidates",
    "entropy": "Entropy per step, nats",
}
LEAD = (
    "Intervals are 95 % bootstrap intervals over test questions, training seeds averaged per "
    "question; differences are paired by question. The oracle searches with the true answer on its "
    "first n questions. Epochs are chosen on dev; test questions choose nothing."
)


def run(params: Params) -> Outcome:
    """Write the page and the plot data, and print the tables."""
    summary = read_summary()
    histories = _histories(params)
    curve = plots.curve_frame(summary)
    plots.write_csv(paths.PLOTS / "accuracy_over_shots.csv", curve)
    sections = {
        "Accuracy": table(tables.accuracy_header(summary), list(tables.accuracy_rows(summary))),
        "Paired differences, points": table(
            tables.DIFFERENCE_HEADER, list(tables.difference_rows(summary))
        ),
        "Accuracy over shots": plots.curve_svg(curve),
    }
    for key, label in TRACES.items():
        frame = plots.history_frame(histories, key)
        plots.write_csv(paths.PLOTS / f"{key}.csv", frame)
        sections[label] = plots.trace_svg(frame, key, label)
    paths.REPORT.mkdir(parents=True, exist_ok=True)
    html = page("Lever-Plus: does the selector help?", LEAD, sections)
    (paths.REPORT / "index.html").write_text(html, encoding="utf-8", newline="\n")
    tables.print_tables(summary, Console())
    return Outcome(f"open {paths.REPORT / 'index.html'}")


def read_summary() -> tables.Summary:
    """Read metrics/summary.json; UserError if it is missing."""
    if not paths.SUMMARY.is_file():
        raise UserError(f"{paths.SUMMARY} is missing: run `dvc repro evaluate`.")
    summary: tables.Summary = json.loads(paths.SUMMARY.read_text(encoding="utf-8"))
    return summary


def _histories(params: Params) -> dict[str, list[Row]]:
    """Read exactly the histories that params.yaml names."""
    folders = {"sft": paths.SFT}
    for seed in params.training_seeds:
        folders |= {f"{m} seed {seed}": paths.offline(m, seed) for m in params.rce.tau}
        folders[f"agro seed {seed}"] = paths.offline("agro", seed)
        folders[f"grpo seed {seed}"] = paths.grpo(seed)
    return {name: read_history(folder / paths.HISTORY) for name, folder in folders.items()}
