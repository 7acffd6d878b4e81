"""The registry of methods: the name of each, the stage that makes it, and what it is.

Most methods are always there. What SFT imitates, the RCE schedules, the size of best-of-n and the
user's own selectors are set in params.yaml, so the registry is made from these (`methods_of`).
`evaluate` writes the methods of a run into metrics/summary.json, where everything that shows
results reads them (`methods_in`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lever_plus.config.names import AGRO, GRPO, GRPO_STOP, RCE, SFT, SFT_BEAMS, Targets
from lever_plus.config.offline import TauSchedule
from lever_plus.errors import UserError
from lever_plus.features.similarities import MIXED, SIIR, SITR, STTR

ZERO_SHOT: Final = "zero-shot"
INSTRUCTED: Final = "instructed"
RANDOM: Final = "random"
VOTE: Final = "vote"
DIVERSE: Final = "diverse"
FIXED: Final = "fixed"
STTR_AS_MANY: Final = f"{STTR}-as-many"
ORACLE: Final = "oracle"
EVALUATE: Final = "evaluate"
"""The stage of all methods that are not trained."""
Kind = Literal["trained", "similarity", "baseline", "selector", "ceiling"]
"""trained: a policy of this pipeline. similarity: a baseline that ranks the pool by similarity.
baseline: any other that is not trained. selector: a user's own. ceiling: it sees the true answer,
so it is not a real method but shows what a method could reach."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method, which is a row of the tables.

    Attributes:
        name: Its name in tables, files and runs.
        stage: The stage of dvc.yaml that makes it.
        kind: See `Kind`.
        label: An explanation of the name, such as "nearest by image".
    """

    name: str
    stage: str
    kind: Kind
    label: str


WITHOUT: Final = Method(ZERO_SHOT, EVALUATE, "baseline", "the VLM without demonstrations")
BEST_INSTRUCTION: Final = Method(
    INSTRUCTED,
    EVALUATE,
    "baseline",
    "the VLM without demonstrations, with the instruction that was best on dev",
)
BASELINES: Final = (
    Method(RANDOM, EVALUATE, "baseline", "drawn at random from the pool"),
    Method(STTR, EVALUATE, "similarity", "nearest by question text"),
    Method(
        VOTE,
        EVALUATE,
        "baseline",
        f"most frequent answer among the demonstrations of {STTR}, without the VLM",
    ),
    Method(SIIR, EVALUATE, "similarity", "nearest by image"),
    Method(SITR, EVALUATE, "similarity", "question text nearest to the query's image"),
    Method(MIXED, EVALUATE, "similarity", "nearest by question text and image together"),
    Method(DIVERSE, EVALUATE, "similarity", "near by question text, and unlike each other"),
    Method(FIXED, EVALUATE, "baseline", "the same demonstrations for all queries, chosen on dev"),
)
IMITATED: Final = {
    "scores": "imitation of all scores of an InfoScore beam search, which sees the true answers",
    "beams": "imitation of only the best sequences that the InfoScore search kept",
}
"""{what a method of SFT imitates: label}."""
REGRESSION: Final = Method(
    AGRO,
    RCE,
    "trained",
    "AGRO, a regression on the differences of the RL data's rewards inside each group",
)
ON_POLICY: Final = Method(
    GRPO, GRPO, "trained", "GRPO, with a KL penalty towards the offline policy of the same seed"
)
ON_POLICY_STOP: Final = Method(
    GRPO_STOP,
    GRPO,
    "trained",
    "GRPO that decides before every pick whether another demonstration is worth its price",
)
AS_MANY: Final = Method(
    STTR_AS_MANY,
    EVALUATE,
    "similarity",
    f"like {STTR}, but with as many demonstrations as {GRPO_STOP} shows",
)
SEARCH: Final = Method(
    ORACLE, EVALUATE, "ceiling", "an InfoScore beam search that sees the true answer"
)


class Methods:
    """Methods with unique names, in the order of the tables."""

    def __init__(self, methods: Iterable[Method]) -> None:
        """Take the methods; UserError if two have the same name."""
        self._by_name: dict[str, Method] = {}
        for method in methods:
            other = self._by_name.setdefault(method.name, method)
            if other is not method:
                raise UserError(
                    f"two methods are called {method.name} ({other.label}; {method.label}): "
                    "rename the schedule in rce.tau, or the selector of your own."
                )

    def __iter__(self) -> Iterator[Method]:
        """Yield the methods."""
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        """Whether a method has this name."""
        return name in self._by_name

    def __getitem__(self, name: str) -> Method:
        """Return a method; UserError if no method has this name."""
        if name not in self._by_name:
            raise UserError(
                f"there is no method {name}; the methods are {', '.join(self._by_name)}. Run `dvc "
                "repro` if params.yaml has changed since the last run."
            )
        return self._by_name[name]

    def names(self, *kinds: Kind) -> list[str]:
        """Return the names of all methods of the given kinds."""
        return [method.name for method in self if method.kind in kinds]

    @property
    def trained(self) -> list[str]:
        """Names of the methods that are trained, once per training seed."""
        return self.names("trained")

    @property
    def offline(self) -> str | None:
        """Name of the first method trained on the RL data, with which GRPO is compared."""
        return next((method.name for method in self if method.stage == RCE), None)

    @property
    def references(self) -> list[str]:
        """Names of the methods that all others are compared with: SFT, and `offline`."""
        return [name for name in (SFT, self.offline) if name in self and name is not None]

    @property
    def shown(self) -> list[str]:
        """Names of the methods whose decisions the report shows: plain, trained, and oracle."""
        plain = (ZERO_SHOT, STTR, RANDOM, *self.names("selector"))
        names = (*plain, *self.references, AGRO, GRPO, GRPO_STOP, ORACLE)
        return [name for name in dict.fromkeys(names) if name in self]

    def part(self, names: Iterable[str]) -> "Methods":
        """Return the methods with these names, in their order; UserError if one is unknown."""
        return Methods(self[name] for name in names)


def methods_of(
    schedules: Mapping[str, TauSchedule],
    targets: Targets,
    best_of: int | None = None,
    selectors: Iterable[str] = (),
    *,
    stops: bool = True,
    instructed: bool = True,
) -> Methods:
    """Return the methods that params.yaml names.

    Args:
        schedules: `rce.tau`, {method: schedule}.
        targets: `sft.targets`, {method: what it imitates}.
        best_of: `evaluate.best_of`, from how many sampled pointers the best is taken; None for no
            such method.
        selectors: Names of the user's own selectors.
        stops: Whether policies learn when to stop (`stop` of params.yaml is not null).
        instructed: Whether instructions are tried (`evaluate.instructions` is not empty).

    Raises:
        UserError: Two methods share a name.
    """
    own = [Method(name, EVALUATE, "selector", "a selector of your own") for name in selectors]
    imitations = [_imitation(name, targets[name]) for name in (SFT, SFT_BEAMS) if name in targets]
    weighted = [_weighted(name, schedule) for name, schedule in schedules.items()]
    sampled = [] if best_of is None else [_best_of(best_of)]
    stopping = (ON_POLICY_STOP,) if stops else ()
    trained = (*imitations, *weighted, REGRESSION, ON_POLICY, *stopping)
    as_many = (AS_MANY,) if stops else ()
    searched = (BEST_INSTRUCTION,) if instructed else ()
    return Methods((WITHOUT, *searched, *BASELINES, *as_many, *own, *trained, *sampled, SEARCH))


def best_of_name(count: int) -> str:
    """Return the name of the best of `count` sampled pointers."""
    return f"best-of-{count}"


def methods_in(summary: Mapping[str, Any]) -> Methods:
    """Return the methods that a summary has.

    Raises:
        UserError: An older version, which did not describe methods, wrote the summary.
    """
    if "methods" not in summary:
        raise UserError(
            "metrics/summary.json does not describe its methods (an older version wrote it): run "
            "`dvc repro evaluate`."
        )
    return Methods(Method(**row) for row in summary["methods"])


def _best_of(count: int) -> Method:
    lists = f"the best of {count} lists of demonstrations sampled from {SFT}"
    label = f"{lists}, chosen with the true answer"
    return Method(best_of_name(count), EVALUATE, "ceiling", label)


def _imitation(name: str, target: str) -> Method:
    return Method(name, SFT, "trained", IMITATED[target])


def _weighted(name: str, schedule: TauSchedule) -> Method:
    label = (
        "RCE, the cross-entropy of the RL data's candidates, weighted by their rewards, "
        f"tau {schedule.start:g} to {schedule.end:g}"
    )
    return Method(name, RCE, "trained", label)
