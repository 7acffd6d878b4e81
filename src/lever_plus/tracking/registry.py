"""MLflow's model registry: every trained selector is a version, found by its checkpoint's md5.

First the files of a logged model are uploaded, and it is marked READY; then one call with all tags
makes it a version of the registered model `lever-plus`. So a version is either complete or does not
exist. Only the process that created a logged model fills it: what a killed one left is deleted, and
a new one is created.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from lever_plus.errors import UserError
from lever_plus.tracking.checkpoints import CHECKPOINT_MD5, checkpoint_md5, checkpoint_tags
from lever_plus.tracking.makers import DELETE, ENDED, STATE, UNDER_WAY, is_lost, opening_tags
from lever_plus.tracking.store import Store, age
from lever_plus.tracking.training_run import TrainingRun

MODEL: Final = "lever-plus"
"""Name of the registered model."""
CHAMPION: Final = "champion"
"""Alias of the version to use."""
CROWNED: Final = "champion"
"""Tag of a version that once got the alias. It is not given again: a user may have moved it."""
LOGGED: Final = "logged_model"
"""Tag of a version: the id of its logged model, which some stores do not keep with the version."""
TRIAL: Final = (
    "The values of a study's best trial, with its figures. It can't be loaded as a selector: the "
    f"next `dvc repro` trains one with these values, which is then models:/{MODEL}@{CHAMPION}."
)

Save = Callable[[TrainingRun, Path, str, str], None]
"""Writes a training's model to a folder: (training, folder, id of its run, id of its logged model).

Raises UserError if something that belongs to the model is missing.
"""


class Selectors(NamedTuple):
    """What to register: the trainings, which of them is the champion, and what writes a model."""

    runs: Sequence[TrainingRun]
    champion: TrainingRun | None
    save: Save


def register(store: Store, selectors: Selectors) -> int:
    """Register the trained selectors that are not yet versions of `lever-plus`; return how many.

    For a model that can't be written (its pool's images are missing, say) there is a warning, and
    the next one follows.

    Raises:
        UserError: The store can't be used.
    """
    registry, count = Registry(store), 0
    for run in selectors.runs:
        checkpoint = checkpoint_md5(run) if run.is_whole else ""
        run_id = store.find(run.key()) if checkpoint else None
        if run_id is None:
            continue
        try:
            if registry.keep_first(checkpoint) is None:
                count += registry.register(run, run_id, selectors.save)
        except UnsavedError as error:
            warnings.warn(f"{run.name} is not in the model registry: {error}", stacklevel=3)
            continue
        if run == selectors.champion:
            registry.crown(checkpoint)
    return count


class UnsavedError(UserError):
    """A model can't be written."""


class Registry:
    """The registered models of a store. Methods raise UserError if a call fails."""

    def __init__(self, store: Store) -> None:
        """Keep the store."""
        self._store, self._client = store, store.client

    def keep_first(self, checkpoint: str) -> Any | None:
        """Return the version that holds the policy with this md5, or None.

        If several hold it, all but the oldest are deleted, with their logged models: two machines
        may register the same policy at once, and with a server between them, no lock holds for
        both.
        """
        found = self._versions(MODEL, checkpoint)
        if not found:
            return None
        first, *others = found
        for version in others:
            self._delete(
                lambda: [each.version for each in self._versions(MODEL, checkpoint)],
                version.version,
                partial(self._client.delete_model_version, MODEL),
            )
            if version.tags.get(LOGGED) != first.tags.get(LOGGED):
                self._delete_model(version.run_id, checkpoint, version.tags.get(LOGGED))
        return first

    def model(self, run_id: str, checkpoint: str) -> Any | None:
        """Return the logged model of a run that is registered for a policy (its md5), or None."""
        found = self._versions(MODEL, checkpoint)[:1]
        registered = {version.tags.get(LOGGED) for version in found}
        models = self._store.models(run_id, checkpoint)
        return next((each for each in models if each.model_id in registered), None)

    def register(self, run: TrainingRun, run_id: str, save: Save) -> bool:
        """Register a training's selector as a version; return whether it was registered.

        It is not if another machine registers it now, or has just done so.

        Args:
            run: The training. If its policy file changes meanwhile, the training is running again,
                and nothing is registered.
            run_id: MLflow's id of the training's run.
            save: Writes the model to a folder.

        Raises:
            UnsavedError: The model can't be written.
            UserError: The store can't be used.
        """
        ask, client = self._store.ask, self._client
        policy = checkpoint_tags(run)
        tags = {**run.tags, **policy}
        checkpoint = policy[CHECKPOINT_MD5]
        model = self._new_model(run, run_id, tags)
        if model is None:
            return False
        model_id = str(model.model_id)
        with TemporaryDirectory(prefix="lever_plus") as folder:
            path = Path(folder) / "model"
            try:
                save(run, path, run_id, model_id)
            except UserError as error:
                self._delete_model(run_id, checkpoint, model_id)
                raise UnsavedError(str(error)) from error
            if checkpoint_tags(run) != policy:
                self._delete_model(run_id, checkpoint, model_id)
                return False
            ask(client.log_model_artifacts, model_id, str(path))
        ask(client.finalize_logged_model, model_id, "READY")
        # Before it is a version, so that no other process takes a version's model for a lost one.
        ask(client.set_logged_model_tags, model_id, {STATE: ENDED})
        self._make_model(MODEL)
        # The place of the files: MLflow would look up models:/ID in its default store, not here.
        source, tags = model.artifact_location, {**tags, LOGGED: model_id}
        make = partial(client.create_model_version, await_creation_for=0, model_id=model_id)
        ask(make, MODEL, source, run_id, tags)
        first = self.keep_first(checkpoint)
        return first is not None and first.tags.get(LOGGED) == model_id

    def _new_model(self, run: TrainingRun, run_id: str, tags: Mapping[str, str]) -> Any | None:
        """Create a logged model of the run's policy; None if another machine is filling one.

        If two machines create one at once, the older one is kept. What a killed process left is
        deleted.
        """
        ask, checkpoint = self._store.ask, tags[CHECKPOINT_MD5]
        for left in self._under_way(run_id, checkpoint, lost=True):
            self._delete_model(run_id, checkpoint, left.model_id)
        made = ask(
            self._client.create_logged_model,
            self._store.experiment,
            f"{run.method}-seed{run.seed}",
            run_id,
            tags={**tags, **opening_tags(DELETE)},
            model_type="selector",
        )
        for other in self._under_way(run_id, checkpoint):
            if age(other) < age(made):
                self._delete_model(run_id, checkpoint, made.model_id)
                return None
        return made

    def _under_way(self, run_id: str, checkpoint: str, *, lost: bool = False) -> list[Any]:
        """Return the models of a policy that other processes are filling.

        With `lost`, return those that killed processes left.
        """
        models = self._store.models(run_id, checkpoint)
        found = [model for model in models if model.tags.get(STATE) == UNDER_WAY]
        return [model for model in found if is_lost(model.tags) == lost]

    def _delete_model(self, run_id: str, checkpoint: str, model_id: str) -> None:
        self._delete(
            lambda: [each.model_id for each in self._store.models(run_id, checkpoint)],
            model_id,
            self._client.delete_logged_model,
        )

    def crown(self, checkpoint: str) -> None:
        """Give the version with this policy (its md5) the alias champion, unless it once had it."""
        for version in self._versions(MODEL, checkpoint)[:1]:
            if CROWNED not in version.tags:
                self._set_champion(MODEL, version.version)
                self._store.ask(
                    self._client.set_model_version_tag, MODEL, version.version, CROWNED, "true"
                )

    def crown_trial(self, model: str, study: Mapping[str, str], trial: int) -> None:
        """Register a trial's run as the newest version of a study's model and make it the champion.

        Args:
            model: Name of the registered model.
            study: Tags that all runs of the study have.
            trial: Number of the trial.

        Raises:
            LookupError: The trial has no run.
        """
        ask, client = self._store.ask, self._client
        tags = {**study, "optuna.trial": str(trial)}
        run_id = self._store.find(tags)
        if run_id is None:
            raise LookupError(f"trial {trial} has no run: run `lever-plus study show` first")
        self._make_model(model)
        source = ask(client.get_run, run_id).info.artifact_uri
        made = ask(client.create_model_version, model, source, run_id, tags, description=TRIAL)
        self._set_champion(model, made.version)

    def _set_champion(self, model: str, version: Any) -> None:
        self._store.ask(self._client.set_registered_model_alias, model, CHAMPION, version)

    def _make_model(self, name: str) -> None:
        """Create a registered model if it is missing; another machine may do the same now."""
        ask, client = self._store.ask, self._client
        if ask(client.search_registered_models, f"name = '{name}'"):
            return
        try:
            ask(client.create_registered_model, name)
        except UserError:
            if not ask(client.search_registered_models, f"name = '{name}'"):
                raise

    def _versions(self, model: str, checkpoint: str) -> list[Any]:
        """Return the versions that hold a policy, the oldest first."""
        wanted = f"name = '{model}' and tags.`{CHECKPOINT_MD5}` = '{checkpoint}'"
        found = self._store.ask(self._client.search_model_versions, wanted)
        return sorted(found, key=lambda version: int(version.version))

    def _delete(
        self, left: Callable[[], list[Any]], which: Any, delete: Callable[..., Any]
    ) -> None:
        """Delete one of the items that are left; another machine may have deleted it already."""
        try:
            self._store.ask(delete, which)
        except UserError:
            if which in left():
                raise
