"""Stage report: results, histories and RL data -> tables, plot data, HTML page, model cards."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
from rich.console import Console

from lever_plus.config.base import Section
from lever_plus.config.names import Targets
from lever_plus.config.offline import TauSchedule
from lever_plus.config.reward import RewardParams
from lever_plus.config.settings import From
from lever_plus.config.stop import StopParams
from lever_plus.data.examples import Example, by_id, read_splits
from lever_plus.data.pools import Pools, check_pools, read_pools
from lever_plus.errors import UserError
from lever_plus.evaluation import instructions, stored
from lever_plus.evaluation.ablations import read_ablations
from lever_plus.evaluation.methods import Methods, methods_in, methods_of
from lever_plus.files.checking import checked
from lever_plus.files.json_files import read_object
from lever_plus.files.writing import write_text
from lever_plus.house_words.ideal import IdealReader
from lever_plus.house_words.maker import LATENT
from lever_plus.house_words.probe import RULES
from lever_plus.pipeline.ideal_reader import open_reader, reader_numbers
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.runs import training_runs
from lever_plus.report import curves, findings, plots, sections, tables
from lever_plus.report.browser import browser
from lever_plus.report.decisions import gather, sample
from lever_plus.report.ladder import ladder
from lever_plus.report.model_card import Trained, model_card
from lever_plus.report.opening import opening
from lever_plus.report.page import bullets, figures, folded, note, page, parts, plot, table
from lever_plus.report.rl_data import rewards_by_method
from lever_plus.report.sentences import READING, sentences
from lever_plus.report.terminal import print_decision
from lever_plus.report.transfer import transfer_section
from lever_plus.tracking.history import Row, read_history
from lever_plus.training.rl_data.headroom import Meter
from lever_plus.training.rl_data.records import Meta, Records, read_rl_data

TRACES = {
    "dev_reward": "Realised reward on dev",
    "kl": "KL to the reference, nats per pointer",
    "reward": "Mean reward of the candidates",
    "entropy": "Entropy per step, nats",
}
TITLE = "Does the learned selector help?"
LEAD = (
    "A vision-language model answers a question about an image better when the right worked "
    "examples, called demonstrations, come before it in the prompt. This page compares ways to "
    "choose them. The model itself stays as it is; what is learned is only which examples it sees."
)
METHOD = (
    "95 % intervals cover the images of the test questions, and trainings where a method is "
    "trained several times. Differences are paired by question and by training seed. Training "
    "epochs and settings are chosen on dev questions; nothing is chosen on test questions."
)
DECISIONS = 60
"""How many test questions the page shows decisions for."""


class Found(NamedTuple):
    """The outputs of earlier stages.

    `metas` is {training seed: what its RL data were made with}; `records` are the RL data of the
    first training seed.
    """

    summary: tables.Summary
    stop: dict[str, Any]
    scores: pd.DataFrame
    splits: dict[str, list[Example]]
    histories: dict[str, list[Row]]
    pools: Pools
    metas: dict[int, Meta]
    records: Records
    reader: IdealReader | None

    @property
    def examples(self) -> dict[int, Example]:
        """All examples by id."""
        return by_id(self.splits)

    @property
    def methods(self) -> Methods:
        """The methods in the summary, by kind."""
        return methods_in(self.summary)


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    training_seeds: list[int]
    schedules: Annotated[dict[str, TauSchedule], From("rce.tau")]
    targets: Annotated[Targets, From("sft.targets")]
    stop: StopParams | None
    reward: RewardParams
    resamples: Annotated[int, From("evaluate.resamples")]
    source: Annotated[str, From("data.source.kind")]


def run(settings: Settings, paths: Paths) -> Outcome:
    """Write the page, the plot data and the model cards, and print the tables."""
    found = _read(settings, paths)
    ideal = _ideal(settings, found)
    frames = {key: plots.history_frame(found.histories, key) for key in TRACES}
    curve = plots.curve_frame(found.summary)
    shown = curves.shown_frame(found.summary, found.stop["rows"])
    plots.write_csv(paths.plots / "accuracy_over_shots.csv", curve)
    plots.write_csv(paths.plots / "accuracy_over_demonstrations.csv", shown)
    for key, frame in frames.items():
        plots.write_csv(paths.plots / f"{key}.csv", frame)
    html = page(TITLE, LEAD, _sections(settings, paths, found, curve, shown, frames, ideal))
    cards = _write_cards(settings, paths, found)
    write_text(paths.report / "index.html", html)
    write_metrics(paths.ideal_reader, ideal)
    tables.print_tables(found.summary, Console(), read_timing(paths), found.stop)
    return Outcome(f"open {paths.report / 'index.html'}; {cards} model cards beside it")


def show(paths: Paths, question_id: int) -> None:
    """Print the decisions about one test question, as the page shows them.

    Raises:
        UserError: It is not a test question, or nothing is evaluated yet.
    """
    scores = read_scores(paths)
    part = scores[scores["query_id"] == question_id]
    if part.empty:
        known = scores["query_id"].drop_duplicates()
        few = ", ".join(str(query) for query in known[:3])
        raise UserError(
            f"question {question_id} is not among the {len(known)} test questions (the first are "
            f"{few}); all are in {paths.prepare / 'test.jsonl'}, their scores in {paths.scores}."
        )
    examples = by_id(read_splits(paths.prepare, paths.root))
    stored.check_scores(part, examples, paths.scores)
    methods = methods_in(read_summary(paths))
    embedded = (paths.source / LATENT).is_file()
    reader = open_reader(paths, examples) if embedded else None
    print_decision(gather(part, examples, methods, reader)[0], examples, methods)


def read_summary(paths: Paths) -> tables.Summary:
    """Read metrics/summary.json; UserError if it is missing or damaged."""
    return stored.read_summary(paths.summary)


def read_stop(paths: Paths) -> dict[str, Any]:
    """Read metrics/stop.json; UserError if it is missing or damaged."""
    return stored.read_stop(paths.stop)


def read_timing(paths: Paths) -> dict[str, float]:
    """Read metrics/timing.json; empty if no evaluation has run on this machine."""
    return stored.read_timing(paths.timing)


def read_scores(paths: Paths) -> pd.DataFrame:
    """Read the table of `evaluate`; UserError if it is missing or damaged."""
    return stored.read_scores(paths.scores)


def _read(settings: Settings, paths: Paths) -> Found:
    summary, scores, pools = read_summary(paths), read_scores(paths), read_pools(paths.pools)
    data = {seed: read_rl_data(paths.rl_data(seed), pools) for seed in settings.training_seeds}
    metas = {seed: meta for seed, (meta, _) in data.items()}
    records = data[settings.training_seeds[0]][1]
    splits = read_splits(paths.prepare, paths.root)
    check_pools(pools, splits, paths.pools)
    examples = by_id(splits)
    stored.check_scores(scores, examples, paths.scores)
    reader = open_reader(paths, examples) if settings.source == "embedded" else None
    histories = _histories(settings, paths)
    stop = read_stop(paths)
    return Found(summary, stop, scores, splits, histories, pools, metas, records, reader)


def read_in_context(path: Path) -> dict[str, float]:
    """Return {row: share of right answers}; empty if the data set is not the embedded one.

    Raises:
        UserError: The file is missing or damaged, or its rows are not those that `in_context`
            writes.
    """
    advice = "run `dvc repro in_context`"
    shares = checked(dict[str, stored.Share], read_object(path, advice), str(path), advice)
    if shares and set(shares) != {"plain", *RULES}:
        raise UserError(f"{path} does not have the rows of the in-context table: {advice}.")
    return shares


def _ideal(settings: Settings, found: Found) -> dict[str, Any]:
    """Return what the ideal reader says; empty if the questions' meanings are not known."""
    if found.reader is None:
        return {}
    return reader_numbers(
        found.reader, found.scores, found.summary, found.pools, settings.resamples
    )


def _sections(
    settings: Settings,
    paths: Paths,
    found: Found,
    curve: pd.DataFrame,
    shown: pd.DataFrame,
    frames: dict[str, pd.DataFrame],
    ideal: dict[str, Any],
) -> dict[str, str]:
    """Return {heading: HTML}, in the order of the page."""
    summary, scores, examples = found.summary, found.scores, found.examples
    methods, resamples = found.methods, settings.resamples
    way = findings.way_to_oracle(scores, methods, resamples)
    told = sentences(summary, scores, resamples, way)
    meter = Meter()
    rewards = rewards_by_method(meter.watching(found.records), found.pools, settings.reward)
    trained = _methods(settings).trained
    traces = [plots.trace_svg(frames[key], key, label, trained) for key, label in TRACES.items()]
    known = list(tables.method_rows(summary))
    marks = tables.notes([*summary["rows"], *summary["means"]])
    said = paths.metrics / "diagnostics.json"
    diagnostics = stored.read_diagnostics(said)
    ablations = read_ablations(paths.ablations)
    decisions = sample(gather(scores, examples, methods, found.reader), DECISIONS)
    numbers = {
        "Accuracy": note(" ".join([tables.ACCURACY_NOTE, *marks]))
        + table(tables.accuracy_header(summary), list(tables.accuracy_rows(summary)))
        + folded("The methods", table(tables.METHOD_HEADER, known, words=True))
        + sections.instruction_section(instructions.tried_in(diagnostics, said)),
        "What each method costs": sections.cost_section(summary, read_timing(paths)),
        "What the VLM learns from demonstrations": sections.in_context_section(
            read_in_context(paths.in_context)
        ),
        "Paired differences": sections.paired_section(summary),
        "Accuracy over shots": curves.over_shots(curve, summary, methods),
        "What each demonstration adds": sections.gain_section(summary),
        "Knowing when to stop": curves.stop_section(found.stop, shown, methods),
        "How far to the oracle": sections.way_section(way, methods),
        "The ideal reader": sections.ideal_section(ideal),
        "Headroom": sections.headroom_section(meter.headroom()),
        "Rewards of the candidates": plot(plots.reward_svg(rewards)),
        "Training": figures(traces),
        "Copies and order": sections.diagnostics_section(diagnostics),
        "Used where it was not trained": transfer_section(ablations["rows"]),
        "Ablations": sections.ablation_section(ablations["rows"], summary)
        + curves.requests_section(ablations, methods),
    }
    return {
        "In one picture": opening(summary, scores, examples, found.reader),
        "What was found": note(READING) + bullets(list(told)),
        "All methods by accuracy": ladder(summary),
        "The numbers behind it": note(METHOD) + parts(numbers),
        "Single decisions": browser(decisions, examples, methods),
    }


def _write_cards(settings: Settings, paths: Paths, found: Found) -> int:
    """Write a model card for every trained policy; return how many."""
    folder = paths.report / "model_cards"
    methods = _methods(settings)
    runs = training_runs(paths, settings.training_seeds, methods)
    for run in runs:
        policy = Trained(
            stage=run.stage,
            method=run.method,
            seed=run.seed,
            checkpoint=run.checkpoint,
            history=read_history(run.history),
            made_with=found.metas[run.seed],
            embedded=settings.source == "embedded",
            command=f"dvc repro {run.stage}@{run.seed}",
        )
        text = model_card(policy, found.scores, methods, settings.resamples)
        write_text(folder / f"{policy.name}.md", text)
    return len(runs)


def _histories(settings: Settings, paths: Paths) -> dict[str, list[Row]]:
    """Read exactly the histories that params.yaml names: {"<method> seed <k>": rows}."""
    return {
        f"{run.method}{plots.SEED}{run.seed}": read_history(run.history)
        for run in training_runs(paths, settings.training_seeds, _methods(settings))
    }


def _methods(settings: Settings) -> Methods:
    stops = settings.stop is not None
    return methods_of(settings.schedules, settings.targets, stops=stops)
