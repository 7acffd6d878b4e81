"""What several stages load the same way from the outputs of earlier ones."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import lever_plus
from lever_plus.config.params import Params
from lever_plus.data.examples import Example, read_splits
from lever_plus.data.pools import Pools, read_pools
from lever_plus.features.encoder import Embeddings, read_embeddings
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline import paths
from lever_plus.pipeline.vlm import open_vlm
from lever_plus.policy.checkpoint import load_policy, save_policy
from lever_plus.policy.network import Policy
from lever_plus.tracking.history import History
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups, groups_from_records
from lever_plus.training.rl_data.headroom import check_headroom
from lever_plus.training.rl_data.records import read_rl_data
from lever_plus.training.trainer import Fitting, Observe, Run
from lever_plus.vlm.scorer import Scorer
from lever_plus.vlm.store.cached import StoredVlm

Track = Callable[[str], AbstractContextManager[Observe]]
"""Opens the tracked run of a method; it gets every history row while the method trains."""


class Workspace:
    """The outputs of earlier stages, each loaded when it is first used."""

    def __init__(self, params: Params) -> None:
        """Set one torch thread.

        Small operations are as fast as on two threads (where another process takes a core, many
        times as fast); what runs side by side are scoring and the parts of a training batch.
        """
        self.params = params
        use_threads(1)

    @cached_property
    def splits(self) -> dict[str, list[Example]]:
        """Examples of all splits."""
        return read_splits(paths.PREPARE)

    @cached_property
    def pools(self) -> Pools:
        """The pool of every query."""
        return read_pools(paths.POOLS)

    @cached_property
    def embeddings(self) -> Embeddings:
        """CLIP features."""
        return read_embeddings(paths.EMBED)

    @cached_property
    def vlm(self) -> StoredVlm:
        """The frozen VLM."""
        return open_vlm(self.params, self.splits)

    @cached_property
    def environment(self) -> Environment:
        """Pools, features and rewards."""
        return Environment(
            pools=self.pools,
            embeddings=self.embeddings,
            scorer=Scorer(self.vlm),
            shots=self.params.pointer.shots,
            reward=self.params.reward,
        )

    def groups(self) -> Groups:
        """Read the RL data that params.yaml trains on; refused where they teach nothing."""
        _, records = read_rl_data(paths.RL_DATA, self.pools)
        check_headroom(records, self.params.rl.min_informative)
        methods = self.params.rl.filter_gen_methods
        return groups_from_records(records, self.pools, self.params.reward, methods)

    def queries(self, split: str, count: int | None = None) -> list[int]:
        """Return the ids of the first `count` examples of a split."""
        return [example.question_id for example in self.splits[split][:count]]

    def load_policy(self, folder: Path) -> Policy:
        """Load a checkpoint; refused if it was trained on other pools or features."""
        return load_policy(
            folder / paths.POLICY,
            pool_sha256=self.pools.sha256,
            encoder=self.embeddings.encoder,
        )

    def save_policy(self, folder: Path, policy: Policy) -> None:
        """Write a checkpoint."""
        save_policy(
            folder / paths.POLICY,
            policy,
            pool_sha256=self.pools.sha256,
            encoder=self.embeddings.encoder,
        )


def train(
    workspace: Workspace,
    method: str,
    folder: Path,
    seed: int,
    track: Track,
    fit: Callable[[Run], Fitting],
    made_from: Sequence[Path],
) -> dict[str, float | int]:
    """Train one method: its history and best policy go to `folder`, its rows to its tracked run.

    If it is killed, the next call with the same settings, data and code goes on after the last
    whole epoch, and ends with the same bytes.

    Args:
        workspace: The outputs of earlier stages.
        method: Name of the run.
        folder: Gets the history and the policy.
        seed: Order of the batches, and sampling.
        track: Opens the tracked run.
        fit: Trains.
        made_from: Files that the training depends on, beside pools, features and params.

    Returns:
        What the stage's metrics file says about it.
    """
    kept = _kept_state(workspace, f"{method}-seed{seed}", made_from)
    with track(method) as observe:
        with History(folder / paths.HISTORY, observe) as history:
            fitting = fit(Run(seed, history.write, kept, workspace.params.threads))
        # Facts about this machine: for the tracked run alone, not for the history, which is an out.
        observe({"step": fitting.step, **workspace.vlm.usage.figures()})
        workspace.save_policy(folder, fitting.best())
    kept.unlink(missing_ok=True)
    return {"dev_reward": fitting.best_reward, "best_epoch": fitting.best_epoch}


def _kept_state(workspace: Workspace, name: str, made_from: Sequence[Path]) -> Path:
    """Return the file of a training's state; states of other settings, data or code are removed."""
    digest = hashlib.sha256(workspace.params.model_dump_json().encode())
    digest.update(workspace.pools.sha256.encode() + workspace.embeddings.encoder.encode())
    digest.update(repr(sorted(workspace.vlm.identity.items())).encode())
    code = sorted(Path(lever_plus.__file__).parent.rglob("*.py"))
    for path in (*made_from, *code):
        digest.update(path.read_bytes())
    kept = paths.TRAINING / f"{name}-{digest.hexdigest()[:16]}.safetensors"
    for other in paths.TRAINING.glob(f"{name}-*"):
        if other != kept:
            other.unlink()
    return kept


def describe_best(metrics: Mapping[str, float | int]) -> str:
    """Return what a training stage says about a run."""
    return f"epoch {metrics['best_epoch']} is best, dev reward {metrics['dev_reward']:.3f}"
