"""The MLflow store: creating runs, finding them, and clearing away those that a kill cut off."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets
from lever_plus.tracking.address import shown, tracking_uri
from lever_plus.tracking.alone import alone
from lever_plus.tracking.calls import ask
from lever_plus.tracking.checkpoints import CHECKPOINT_MD5
from lever_plus.tracking.lineage import git_commit
from lever_plus.tracking.makers import (
    CLOSE,
    DELETE,
    ENDED,
    IF_LOST,
    STATE,
    UNDER_WAY,
    is_lost,
    opening_tags,
)
from lever_plus.tracking.opening import open_client, own_artifacts
from lever_plus.tracking.run import Run

EXPERIMENT: Final = "lever-plus"
DVC_TAGS: Final = {
    "dvc.stage": "DVC_STAGE",
    "dvc.exp_name": "DVC_EXP_NAME",
    "dvc.baseline_rev": "DVC_EXP_BASELINE_REV",
}
"""{tag: environment variable} for the stage and experiment of DVC that a run belongs to."""
OTHERS_S: Final = 600.0
"""How long to wait for other processes that create runs in the same store, in seconds."""
Answer = TypeVar("Answer")


class Store:
    """Creates, finds and opens runs. Every call ends in time, with an answer or a UserError."""

    def __init__(
        self, uri: str | None = None, *, seconds: float = 60.0, budget: float | None = None
    ) -> None:
        """Connect; a SQLite file that is missing is created, by one process at a time.

        Args:
            uri: Address of the store; None is MLFLOW_TRACKING_URI, or else mlflow.db in the
                project's root.
            seconds: How long one call may take.
            budget: How long all calls may take together; None is as long as they need.

        Raises:
            UserError: MLflow is not installed, the store can't be used, or its experiment was
                deleted.
        """
        self.uri = tracking_uri() if uri is None else uri
        self.place = shown(self.uri)
        self._seconds = seconds
        self._until = None if budget is None else time.monotonic() + budget
        self._client = open_client(self.uri)
        self._experiment = self._experiment_id()

    def ask(self, call: Callable[..., Answer], *args: Any, **named: Any) -> Answer:
        """Return the result of a call of MLflow's client; UserError if it fails or is too slow."""
        if self._until is not None and time.monotonic() > self._until:
            raise UserError(f"The MLflow store {self.place} is too slow to wait for.")
        return ask(self.place, self._seconds, call, *args, **named)

    def alone(self, seconds: float = OTHERS_S) -> AbstractContextManager[None]:
        """Return a block in which no other process creates runs from files (`track sync`)."""
        return alone(self.uri, "sync", seconds)

    def _experiment_id(self) -> str:
        found = self.ask(self._client.get_experiment_by_name, EXPERIMENT)
        if not found:
            artifacts = own_artifacts(self.uri)
            place = str(artifacts / EXPERIMENT) if artifacts else None
            try:
                return str(self.ask(self._client.create_experiment, EXPERIMENT, place))
            except UserError:
                found = self.ask(self._client.get_experiment_by_name, EXPERIMENT)
                if not found:  # no other process has created it meanwhile
                    raise
        if found.lifecycle_stage == "deleted":
            raise UserError(
                f"The MLflow store {self.place}: its experiment {EXPERIMENT} was deleted: `mlflow "
                f"experiments restore --experiment-id {found.experiment_id}` restores it (with "
                "MLFLOW_TRACKING_URI set to the store), `mlflow gc` removes it for good."
            )
        return str(found.experiment_id)

    @property
    def client(self) -> Any:
        """Return MLflow's client; call its methods through `ask`."""
        return self._client

    @property
    def experiment(self) -> str:
        """Return the id of the experiment."""
        return self._experiment

    def share_view(self, tag: str, state: str) -> None:
        """Save a shared view of the experiment as its tag, unless it is saved already."""
        experiment = self.ask(self._client.get_experiment, self._experiment)
        if experiment.tags.get(tag) != state:
            self.ask(self._client.set_experiment_tag, self._experiment, tag, state)

    def find(self, tags: Mapping[str, str]) -> str | None:
        """Return the id of the newest complete run with all these tags, or None."""
        found = (str(run.info.run_id) for run in self.runs(_having(tags)) if _is_whole(run))
        return next(found, None)

    def is_under_way(self, tags: Mapping[str, str]) -> bool:
        """Whether a living process is writing a run with these tags."""
        runs = self.runs(_having({**tags, STATE: UNDER_WAY}))
        return any(not is_lost(run.data.tags) for run in runs)

    def runs(self, wanted: str, page: int = 50) -> Iterator[Any]:
        """Yield the experiment's runs that match a filter of MLflow, the newest first."""
        token = None
        while True:
            found = self.ask(
                self._client.search_runs,
                [self._experiment],
                wanted,
                max_results=page,
                page_token=token,
            )
            yield from found
            token = found.token
            if not token:
                return

    def history(self, run_id: str, metric: str) -> list[Any]:
        """Return every point of a run's metric."""
        return list(self.ask(self._client.get_metric_history, run_id, metric))

    def create(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        if_lost: str = DELETE,
    ) -> Run:
        """Start a run with lineage tags and flattened params.

        Tags that mark the run as complete, such as the hash of its history, go to `Run.end`.

        Args:
            name: Name of the run.
            tags: Tags by which the run is found.
            params: Parameters to log; passwords and keys are removed.
            if_lost: What happens to the run if this process is killed before it has ended: CLOSE or
                DELETE.
        """
        commit, dirty = git_commit()
        lineage = {"git.commit": commit, "git.dirty": str(dirty).lower()}
        for tag, variable in DVC_TAGS.items():
            if os.environ.get(variable):
                lineage[tag] = os.environ[variable]
        note = f"Reproduce: `git checkout {commit} && dvc repro`"
        described = {"mlflow.note.content": note, **lineage, **opening_tags(if_lost), **tags}
        created = self.ask(self._client.create_run, self._experiment, run_name=name, tags=described)
        run = Run(self._client, str(created.info.run_id), self.ask)
        run.log_params({key: without_secrets(str(value)) for key, value in params.items()})
        return run

    def open(self, run_id: str, model: Any = None) -> Run:
        """Return an existing run, to add to it and to a logged model of it (one of `models`)."""
        return Run(self._client, run_id, self.ask, model)

    def models(self, run_id: str, checkpoint: str) -> list[Any]:
        """Return a run's logged models that hold a policy, the oldest first.

        Args:
            run_id: MLflow's id of the run.
            checkpoint: md5 of the policy's file.
        """
        found = self.ask(
            self._client.search_logged_models,
            [self._experiment],
            filter_string=f"source_run_id = '{run_id}'",
        )
        held = [model for model in found if model.tags.get(CHECKPOINT_MD5) == checkpoint]
        return sorted(held, key=age)

    def clear_lost(self) -> None:
        """Close or delete the runs whose processes are gone; call it inside `alone`."""
        for run in list(self.runs(_having({STATE: UNDER_WAY}))):
            if is_lost(run.data.tags):
                if run.data.tags.get(IF_LOST) == CLOSE:
                    self.open(run.info.run_id).end("KILLED")
                else:
                    self.ask(self._client.delete_run, run.info.run_id)

    def keep_first(self, tags: Mapping[str, str]) -> None:
        """Of runs created from files with the same tags, delete all but the first complete one.

        Two machines may create the same run at once: with a server between them, no lock holds for
        both. The first is kept because its machine may be using it already.
        """
        found = [run for run in self.runs(_having({**tags, IF_LOST: DELETE})) if _is_whole(run)]
        found.sort(key=lambda run: (run.info.end_time or 0, run.info.run_id))
        for run in found[1:]:
            self.ask(self._client.delete_run, run.info.run_id)


def age(model: Any) -> tuple[int, str]:
    """Return the key that sorts logged models, the oldest first, in the same order everywhere."""
    return int(model.creation_timestamp), str(model.model_id)


def _having(tags: Mapping[str, str]) -> str:
    """Return MLflow's filter for runs with tags."""
    quoted = {key: f'"{value}"' if "'" in value else f"'{value}'" for key, value in tags.items()}
    return " and ".join(f"tags.`{key}` = {value}" for key, value in quoted.items())


def _is_whole(run: Any) -> bool:
    """Whether a run has ended; older runs do not have the tag, so their status decides."""
    state = run.data.tags.get(STATE)
    return state == ENDED or (state is None and run.info.status != "RUNNING")
