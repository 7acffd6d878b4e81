"""A trained policy as a selector: for queries that nobody has seen, from any pool."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.features.encoder import ClipEncoder
from lever_plus.features.kept import KeptFeatures
from lever_plus.features.sources import EncodedFeatures, Features
from lever_plus.features.whitening import SPACE
from lever_plus.files.reading import is_there
from lever_plus.hub.repository import NotFetchedError, fetch, is_hub_id, send
from lever_plus.policy.checkpoint import load_checkpoint
from lever_plus.policy.decoding import NOTHING, Decoded, greedy, until_stop
from lever_plus.policy.encoding import DECODE_BATCH, Floats, Rows, encode_pools
from lever_plus.policy.files import CARD, CONFIG, POLICY
from lever_plus.policy.network import Encoded, Policy
from lever_plus.selectors.base import BatchSelector, Selection

Decode = Callable[[Policy, Encoded, int], Decoded]
FILES: Final = (CONFIG, POLICY, SPACE, CARD)
"""All that a checkpoint is made of."""


class LearnedSelector(BatchSelector):
    """Picks the most probable candidate, one after the other.

    Attributes:
        policy: In eval mode.
        features: Of queries and candidates.
        price: What a demonstration must be worth to be shown, in points of reward; None: as many
            are shown as are asked for.
        folder: The checkpoint that it was loaded from; None: none.
    """

    def __init__(
        self,
        policy: Policy,
        features: Features,
        price: float | None = None,
        folder: Path | None = None,
    ) -> None:
        """Keep a policy, and features in the space that it was trained in; all as above.

        Raises:
            UserError: The policy does not decide when to stop, or has not learned this price.
        """
        highest = policy.config.highest_price
        if price is not None and not highest:
            raise UserError(
                "this selector shows as many demonstrations as it is asked for: a price has no "
                "effect. One that decides when to stop is trained as grpo-stop."
            )
        if price is not None and not 0 <= price <= highest:
            raise UserError(f"this selector knows prices from 0 to {highest:g}, not {price:g}.")
        self.policy, self.features, self.price = policy.eval(), features, price
        self.folder = folder

    @property
    def stops(self) -> bool:
        """Whether fewer demonstrations than asked for may be chosen."""
        return self.price is not None

    def push_to_hub(
        self, name: str, *, private: bool = False, message: str = "A selector of Lever-Plus"
    ) -> str:
        """Send the selector's checkpoint to the Hugging Face Hub, where `load_selector` finds it.

        An encoder of your own is not sent: it is a model of its own.

        Args:
            name: Such as user/name; made if it is not there.
            private: Whether it is seen by its owners alone, where it is made.
            message: Of the commit.

        Returns:
            The address of the commit.

        Raises:
            UserError: The selector was not loaded from a checkpoint, the environment does not
                allow it (HF_HUB_OFFLINE=0 does), or the Hub refuses.
        """
        if self.folder is None:
            raise UserError(
                "this selector was not loaded from a checkpoint: push what `load_selector` returns."
            )
        load_checkpoint(self.folder)
        return send(self.folder, name, FILES, private=private, message=message)

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the greedy pointers, and the log-probability of each pick."""
        return [group[0] for group in self.decode(queries, pools, shots, self._decoded)]

    def choose_encoded(
        self, encoded: Encoded, pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the same for queries and pools that are encoded; errors as `decode`."""
        self._check_shots(shots)
        return [
            group[0] for group in _selections(self._decoded(self.policy, encoded, shots), pools)
        ]

    def _decoded(self, policy: Policy, encoded: Encoded, shots: int) -> Decoded:
        whole = greedy(policy, encoded, shots)
        return whole if self.price is None else until_stop(policy, encoded, whole, self.price)

    def _check_shots(self, shots: int) -> None:
        longest = self.policy.config.shots
        if not 1 <= shots <= longest:
            raise UserError(f"this selector picks 1 to {longest} demonstrations, not {shots}.")

    @torch.no_grad()
    def decode(
        self,
        queries: Sequence[Query],
        pools: Sequence[Sequence[Example]],
        shots: int,
        how: Decode,
    ) -> list[list[Selection]]:
        """Return what a decoder finds for each query: a group of pointers.

        Args:
            queries: What is asked.
            pools: Pool of each query.
            shots: Length of the pointers.
            how: Such as `decoding.greedy`, given policy, encoded queries and shots.

        Raises:
            UserError: The policy was not made for so many picks.
        """
        self._check_shots(shots)
        groups = []
        for start in range(0, len(queries), DECODE_BATCH):
            part = pools[start : start + DECODE_BATCH]
            encoded = self._encode(queries[start : start + DECODE_BATCH], part)
            groups += _selections(how(self.policy, encoded, shots), part)
        return groups

    def _encode(self, queries: Sequence[Query], pools: Sequence[Sequence[Example]]) -> Encoded:
        # Pools share their examples: each object is compared with others once, not in every pool.
        held = {id(example): example for pool in pools for example in pool}
        distinct = list(dict.fromkeys(held.values()))
        number = {example: place for place, example in enumerate(distinct)}
        row = {key: number[example] for key, example in held.items()}
        rows = [np.array([row[id(example)] for example in pool], dtype=np.int64) for pool in pools]

        def candidates(some: Rows) -> Floats:
            return self.features.candidates([distinct[i] for i in some.tolist()])

        return encode_pools(self.policy, self.features.queries(queries), rows, candidates)


def _selections(decoded: Decoded, pools: Sequence[Sequence[Example]]) -> list[list[Selection]]:
    """Return the examples that pointers name, a group for each pool."""
    return [
        [
            Selection(
                tuple(pool[i] for i in pointer if i != NOTHING),
                tuple(steps[: len(pointer) - pointer.count(NOTHING)]),
            )
            for pointer, steps in zip(pointers, log_probs, strict=True)
        ]
        for pool, pointers, log_probs in zip(
            pools, decoded.pointers.tolist(), decoded.log_probs.tolist(), strict=True
        )
    ]


def load_selector(
    checkpoint: str | Path,
    encoder: str | Path | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    features: str | Path | None = None,
    price: float | None = None,
    revision: str | None = None,
) -> LearnedSelector:
    """Load a trained selector with its encoder.

    Args:
        checkpoint: Folder that a training wrote; or user/name of one on the Hugging Face Hub, which
            is taken from the local cache, or fetched with HF_HUB_OFFLINE=0.
        encoder: Folder of the CLIP; None: where it was when the selector was trained, or the
            shipped one.
        device: Where the encoder runs, such as "cpu" or "cuda".
        batch_size: Images or texts in one forward pass of the encoder.
        features: Folder in which encoded images and texts outlive the process; None for nowhere.
        price: Of a selector that decides when to stop: what a demonstration must be worth to be
            shown, in points of reward. None: as many are shown as are asked for.
        revision: Branch, tag or commit on the Hub; None: the newest.

    Raises:
        UserError: The checkpoint or the encoder is missing or damaged, or the encoder is another
            than the one that the selector was trained with.
    """
    folder = _folder(checkpoint, revision)
    policy, space, config = load_checkpoint(folder)
    path = str(encoder or config.encoder.path)
    revision = config.encoder.revision if encoder is None else None
    try:
        clip = ClipEncoder(path, revision, device, batch_size)
    except UserError as error:
        if encoder is not None or is_there(path):
            raise
        raise UserError(
            f"the encoder is not at {path}, where it was when {checkpoint} was trained: name its "
            f"folder (`encoder=...`, `--encoder`). It is the one with hash {space.encoder[:12]}."
        ) from error
    kept = KeptFeatures(Path(features) if features else None, clip.identity)
    return LearnedSelector(policy, EncodedFeatures(space, clip, kept), price, folder)


def _folder(checkpoint: str | Path, revision: str | None) -> Path:
    """Return the folder of a checkpoint, here or on the Hub."""
    if isinstance(checkpoint, str) and is_hub_id(checkpoint):
        try:
            return fetch(checkpoint, revision, FILES)
        except NotFetchedError as error:
            raise UserError(
                f"{checkpoint} holds no checkpoint: it is no folder, and {error}: name the folder "
                "that a training wrote, or user/name of one on the Hugging Face Hub."
            ) from error
    if revision is not None:
        raise UserError(f"{checkpoint} is a folder of this machine, which has no revisions.")
    return Path(checkpoint)
