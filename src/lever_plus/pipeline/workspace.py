"""The outputs of earlier stages, loaded in one way for all stages that use them."""

from functools import cached_property
from pathlib import Path

from lever_plus.config.offline import RlParams
from lever_plus.config.reward import RewardParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import Example, by_id, read_splits
from lever_plus.data.pools import Pools, check_pools, read_pools
from lever_plus.features.embeddings import Embeddings, read_embeddings
from lever_plus.features.sources import StoredFeatures
from lever_plus.features.whitening import SPACE, FeatureSpace, read_feature_space
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.vlm import open_vlm
from lever_plus.policy.checkpoint import load_policy
from lever_plus.policy.network import Policy
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups, groups_from_records
from lever_plus.training.rl_data.headroom import informative
from lever_plus.training.rl_data.records import read_rl_data
from lever_plus.vlm.scorer import Scorer
from lever_plus.vlm.store.cached import StoredVlm


class Workspace:
    """The outputs of earlier stages, each read when it is first used."""

    def __init__(
        self, paths: Paths, vlm: VlmParams, scoring: ScoringParams, opened: StoredVlm | None = None
    ) -> None:
        """Keep where everything is, and set torch to one thread, which suits small operations.

        Args:
            paths: Where earlier stages put their outputs.
            vlm: The frozen VLM.
            scoring: Where its answers are kept.
            opened: The VLM, if it is already open; None opens the one that `vlm` names.
        """
        use_threads(1)
        self.paths = paths
        self._vlm, self._scoring, self._opened = vlm, scoring, opened

    @cached_property
    def splits(self) -> dict[str, list[Example]]:
        """Examples of all splits."""
        return read_splits(self.paths.prepare, self.paths.root)

    @cached_property
    def examples(self) -> dict[int, Example]:
        """All examples by id."""
        return by_id(self.splits)

    @cached_property
    def pools(self) -> Pools:
        """The pool of every query."""
        pools = read_pools(self.paths.pools)
        check_pools(pools, self.splits, self.paths.pools)
        return pools

    @cached_property
    def embeddings(self) -> Embeddings:
        """Features by id."""
        return read_embeddings(self.paths.embed, self.examples)

    @cached_property
    def features(self) -> StoredFeatures:
        """Features by content."""
        return StoredFeatures(self.embeddings, self.examples)

    @cached_property
    def space(self) -> FeatureSpace:
        """The feature space of all policies."""
        return read_feature_space(self.paths.embed / SPACE)

    @cached_property
    def vlm(self) -> StoredVlm:
        """The frozen VLM; all examples are checked before it answers any request."""
        vlm = self._opened or open_vlm(self._vlm, self._scoring, self.paths)
        vlm.check(self.examples.values())
        return vlm

    @cached_property
    def scorer(self) -> Scorer:
        """The frozen VLM and the metric."""
        return Scorer(self.vlm)

    def environment(self, shots: int, reward: RewardParams | None = None) -> Environment:
        """Return pools, features and rewards; without a reward, it gives only scores."""
        return Environment(
            pools=self.pools,
            examples=self.examples,
            embeddings=self.embeddings,
            scorer=self.scorer,
            shots=shots,
            reward=reward,
        )

    def groups(self, rl_data: Path, reward: RewardParams, rl: RlParams) -> Groups:
        """Read a folder of RL data to train on; raise UserError if they teach too little."""
        records = informative(read_rl_data(rl_data, self.pools)[1], rl.min_informative)
        return groups_from_records(records, self.pools, reward, rl.filter_gen_methods)

    def of_split(self, split: str, count: int | None = None) -> list[Example]:
        """Return the first `count` examples of a split."""
        return self.splits[split][:count]

    def queries(self, split: str, count: int | None = None) -> list[int]:
        """Return the ids of the first `count` examples of a split."""
        return [example.question_id for example in self.of_split(split, count)]

    def pools_of(self, examples: list[Example]) -> list[list[Example]]:
        """Return the pool of each example."""
        return [[self.examples[i] for i in self.pools.of(e.question_id)] for e in examples]

    def load_policy(self, checkpoint: Path, *, allow_other_pool: bool = False) -> Policy:
        """Load a policy; refuse it if it was trained in another feature space or on other pools.

        Args:
            checkpoint: Folder of the policy.
            allow_other_pool: Whether to use it on other pools than it was trained on.
        """
        return load_policy(
            checkpoint,
            pool_sha256=self.pools.sha256,
            space_sha256=self.embeddings.space_sha256,
            allow_other_pool=allow_other_pool,
        )

    def selector(
        self, checkpoint: Path, price: float | None = None, *, allow_other_pool: bool = False
    ) -> LearnedSelector:
        """Return a trained selector that uses the stored features; with a price, it may stop."""
        policy = self.load_policy(checkpoint, allow_other_pool=allow_other_pool)
        return LearnedSelector(policy, self.features, price)
