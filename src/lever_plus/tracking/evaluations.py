"""The part of metrics/summary.json and metrics/ablations.json that MLflow shows."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lever_plus.files.checking import STRICT
from lever_plus.files.json_files import read_json_as
from lever_plus.tracking.history import LONGEST_NAME, NAME

ADVICE: Final = "run `dvc repro`, or `git checkout` the file"
Label = Annotated[str, Field(pattern=f"^{NAME}$", max_length=LONGEST_NAME)]
"""The name of a method or of a metric; it becomes part of a metric's name in MLflow."""
Shots = Annotated[int, Field(ge=0, le=1000)]
Figures = dict[Label, Annotated[float, Field(strict=True, allow_inf_nan=False)]]
Bounds = tuple[float, float]
Values = dict[tuple[str, int], float]
"""{(metric, step): value}."""


class _Part(BaseModel):
    """A part of a metrics file; keys of the file that are not read here are ignored."""

    model_config = ConfigDict(**{**STRICT, "extra": "ignore"})


class Accuracy(_Part):
    """The accuracy of a method: its mean over seeds, and that of each seed in ascending order."""

    method: Label
    accuracy: float
    ci95: Bounds
    seed_accuracies: tuple[float, ...]

    def of(self, seed: int | None) -> float:
        """Return the accuracy of one seed, by its position among the seeds, or (None) the mean."""
        return self.accuracy if seed is None else self.seed_accuracies[seed]


class AtShot(Accuracy):
    """The accuracy with a given number of demonstrations."""

    shots: Shots


class Difference(_Part):
    """A paired difference between two methods, at one shot or as the mean over all shots."""

    method: Label
    shots: Shots | Literal["mean"]
    versus: Label
    difference: float
    ci95: Bounds


class Evaluation(_Part):
    """The results of an evaluation: accuracies at each shot, their means, and differences."""

    rows: tuple[AtShot, ...]
    means: tuple[Accuracy, ...]
    differences: tuple[Difference, ...]

    @model_validator(mode="after")
    def _once(self) -> "Evaluation":
        """Refuse two values of the same figure: MLflow would show only one of them."""
        keys: list[tuple[str, str, int | str]] = []
        keys += [("rows", row.method, row.shots) for row in self.rows]
        keys += [("means", mean.method, "mean") for mean in self.means]
        keys += [("differences", f"{d.method} and {d.versus}", d.shots) for d in self.differences]
        for (part, method, shots), count in Counter(keys).items():
            if count > 1:
                raise ValueError(f"{part}: {method} at {shots} occurs {count} times")
        return self

    @property
    def methods(self) -> list[str]:
        """Return the methods in the order of the file."""
        return list(dict.fromkeys(row.method for row in (*self.rows, *self.means)))

    def seeds(self, method: str) -> set[int]:
        """Return the numbers of seeds in a method's rows: one number if the file is correct."""
        found = (*self.rows, *self.means)
        return {len(row.seed_accuracies) for row in found if row.method == method}

    def values(self, method: str, seed: int | None) -> Values:
        """Return a method's metrics, and its curve over shots (its step is the number of shots).

        Args:
            method: The method's name.
            seed: Position of a seed among the method's seeds in ascending order; None for the mean
                over all of them.
        """
        found: Values = {}
        for row in (row for row in self.rows if row.method == method):
            found |= _with_bounds(f"eval/acc/shot_{row.shots:02d}", "_ci95", row.of(seed), row.ci95)
            found["curve/acc", row.shots] = row.of(seed)
        for mean in (mean for mean in self.means if mean.method == method):
            low, high = mean.ci95
            found["eval/acc/mean", 0] = mean.of(seed)
            found |= {("eval/acc/ci95_low", 0): low, ("eval/acc/ci95_high", 0): high}
        for each in self.differences:
            if each.method == method and each.shots == "mean":
                found |= _with_bounds(f"delta/vs_{each.versus}", "", each.difference, each.ci95)
        return found


class _VariantDifference(_Part):
    difference: float
    ci95: Bounds


class _VariantRow(Accuracy):
    variant: Label
    versus: Label | Literal[""] = ""
    difference: _VariantDifference | None

    @model_validator(mode="after")
    def _compared(self) -> "_VariantRow":
        if self.difference and not self.versus:
            raise ValueError("there is a difference, but versus is missing")
        return self


class _Ablations(_Part):
    rows: tuple[_VariantRow, ...]


def read_evaluation(path: Path) -> Evaluation:
    """Read metrics/summary.json; UserError if it is missing or damaged."""
    return read_json_as(Evaluation, path, ADVICE)


def read_ablations(path: Path) -> Evaluation:
    """Read metrics/ablations.json in the form of a summary; its methods are `<variant>/<method>`.

    The pipeline's own rows, which have no difference, are left out.

    Raises:
        UserError: The file is missing or damaged.
    """
    means, differences = [], []
    for row in read_json_as(_Ablations, path, ADVICE).rows:
        if row.difference is None:
            continue
        name = f"{row.variant}/{row.method}"
        means.append(
            Accuracy(
                method=name,
                accuracy=row.accuracy,
                ci95=row.ci95,
                seed_accuracies=row.seed_accuracies,
            )
        )
        differences.append(
            Difference(
                method=name,
                shots="mean",
                versus=row.versus.replace("/", "_"),
                difference=row.difference.difference,
                ci95=row.difference.ci95,
            )
        )
    return Evaluation(rows=(), means=tuple(means), differences=tuple(differences))


def read_usage(path: Path) -> dict[str, float]:
    """Read the counts of a stage's requests to the VLM; UserError if the file is damaged."""
    return read_json_as(Figures, path, "delete it: only MLflow shows it")


def _with_bounds(name: str, ending: str, value: float, bounds: Bounds) -> Values:
    low, high = bounds
    return {(name, 0): value, (f"{name}{ending}_low", 0): low, (f"{name}{ending}_high", 0): high}
