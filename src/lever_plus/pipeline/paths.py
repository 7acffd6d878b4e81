"""Where every stage puts its outputs; dvc.yaml names the same places."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lever_plus.config.names import stage_of
from lever_plus.policy.files import POLICY

HISTORY: Final = "history.jsonl"


@dataclass(frozen=True)
class Paths:
    """The folders and files of a project.

    Attributes:
        root: The project's folder.
        moved: {stage: folder of its outputs}, for stages whose outputs are not in their usual
            place.
        metrics_in: Folder of the metrics files; None: metrics/ in the project.
    """

    root: Path = Path()
    moved: Mapping[str, Path] = field(default_factory=dict)
    metrics_in: Path | None = None

    def of(self, stage: str) -> Path:
        """Return the folder of a stage's outputs."""
        return self.moved.get(stage, self.root / "artifacts" / stage)

    @property
    def prepare(self) -> Path:
        """Examples of every split."""
        return self.of("prepare")

    @property
    def source(self) -> Path:
        """Files of the embedded data set."""
        return self.prepare / "source"

    @property
    def images(self) -> Path:
        """Images of the embedded data set."""
        return self.of("images")

    @property
    def pools(self) -> Path:
        """The pool file."""
        return self.of("pool") / "pools.jsonl"

    @property
    def embed(self) -> Path:
        """Features of all examples."""
        return self.of("embed")

    @property
    def searches(self) -> Path:
        """What the InfoScore search scored."""
        return self.of("sft_data") / "searches.jsonl"

    @property
    def scores(self) -> Path:
        """The score table of the evaluation."""
        return self.of("evaluate") / "scores.parquet"

    @property
    def report(self) -> Path:
        """The report."""
        return self.of("report")

    @property
    def cache(self) -> Path:
        """Files that only save time: they may be deleted, and no result depends on them."""
        return self.root / "cache"

    @property
    def usage(self) -> Path:
        """What the requests of each stage to the VLM cost on this machine."""
        return self.cache / "usage"

    @property
    def training(self) -> Path:
        """States of trainings that were interrupted or still run."""
        return self.cache / "training"

    @property
    def metrics(self) -> Path:
        """Metrics files."""
        return self.metrics_in or self.root / "metrics"

    @property
    def summary(self) -> Path:
        """Accuracies and differences."""
        return self.metrics / "summary.json"

    @property
    def stop(self) -> Path:
        """Accuracy and demonstrations of policies that stop, by price."""
        return self.metrics / "stop.json"

    @property
    def timing(self) -> Path:
        """How long selections took on this machine; not a DVC output, because it always differs."""
        return self.metrics / "timing.json"

    @property
    def in_context(self) -> Path:
        """What the VLM reads from demonstrations."""
        return self.metrics / "in_context.json"

    @property
    def ideal_reader(self) -> Path:
        """What an ideal reader would answer after every method's pointers."""
        return self.metrics / "ideal_reader.json"

    @property
    def ablations(self) -> Path:
        """Accuracies of the ablations' variants."""
        return self.metrics / "ablations.json"

    @property
    def study_settings(self) -> Path:
        """The settings of the study."""
        return self.root / "search" / "params.yaml"

    @property
    def study_results(self) -> Path:
        """The study's table and plots."""
        return self.root / "search" / "results"

    @property
    def plots(self) -> Path:
        """Plot data."""
        return self.root / "plots"

    def trained(self, method: str, seed: int) -> Path:
        """Return the checkpoint folder of a method and a training seed."""
        return self.of(stage_of(method)) / f"seed{seed}" / method

    def rl_data(self, seed: int) -> Path:
        """Return the folder of the RL data that a training seed's SFT policy proposed."""
        return self.of("rl_data") / f"seed{seed}"

    def records(self, seed: int) -> Path:
        """Return the file of records in a training seed's RL data."""
        return self.rl_data(seed) / "records.jsonl"

    def variant(self, variant: str, method: str | None = None, seed: int | None = None) -> Path:
        """Return the folder of a variant of the ablations, or of one of its checkpoints.

        A checkpoint needs both `method` and `seed`.
        """
        folder = self.root / "artifacts" / "ablations" / variant
        return folder if method is None else folder / f"seed{seed}" / method


def weights_of(checkpoint: Path) -> Path:
    """Return the file of a checkpoint's weights."""
    return checkpoint / POLICY
