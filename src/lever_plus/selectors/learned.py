"""A trained policy as a selector: it chooses for any query, from any pool."""

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
"""The files of a checkpoint."""


class LearnedSelector(BatchSelector):
    """Picks the most probable candidate of a policy, again and again.

    Attributes:
        policy: The policy, in eval mode.
        features: Where features of queries and candidates come from.
        price: The reward that one more demonstration (or, with `price_per: token`, each token that
            it adds) must be expected to bring, else it is not shown; None: as many are shown as are
            asked for.
        folder: The checkpoint from which it was loaded; None: it was not loaded.
    """

    def __init__(
        self,
        policy: Policy,
        features: Features,
        price: float | None = None,
        folder: Path | None = None,
    ) -> None:
        """Keep a policy, and features in the feature space that it was trained in.

        The arguments are the attributes of the class.

        Raises:
            UserError: There is a price, but the policy does not decide when to stop, or the price
                is outside those of its training.
        """
        highest = policy.config.highest_price
        if price is not None and not highest:
            raise UserError(
                "this selector shows as many demonstrations as it is asked for, so a price has no "
                "effect: use one that decides when to stop (grpo-stop), or leave the price out."
            )
        if price is not None and not 0 <= price <= highest:
            raise UserError(
                f"this selector was trained with prices from 0 to {highest:g}, not {price:g}: "
                "choose a price in that range."
            )
        self.policy, self.features, self.price = policy.eval(), features, price
        self.folder = folder

    @property
    def stops(self) -> bool:
        """Whether it may choose fewer demonstrations than it is asked for."""
        return self.price is not None

    def push_to_hub(
        self, name: str, *, private: bool = False, message: str = "A selector of Lever-Plus"
    ) -> str:
        """Send the selector's checkpoint to the Hugging Face Hub, where `load_selector` finds it.

        The encoder is not sent: unless it is shipped, whoever loads the selector must have it.

        Args:
            name: Hub id of the repository, user/name; it is made if there is none.
            private: Whether a repository that is made can be seen only by its owners.
            message: Message of the commit.

        Returns:
            The address of the commit.

        Raises:
            UserError: The selector was not loaded from a checkpoint, the environment does not
                allow sending (HF_HUB_OFFLINE=0 does), or the Hub refuses.
        """
        if self.folder is None:
            raise UserError(
                "this selector was not loaded from a checkpoint: push one that `load_selector` "
                "returns."
            )
        load_checkpoint(self.folder)
        return send(self.folder, name, FILES, private=private, message=message)

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the greedy pointer of each query, with the log-probability of each pick."""
        return [group[0] for group in self.decode(queries, pools, shots, self._decoded)]

    def choose_encoded(
        self, encoded: Encoded, pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the same for queries and pools that are encoded already; errors as `decode`."""
        check_shots(shots, self.policy.config.shots)
        return [
            group[0] for group in _selections(self._decoded(self.policy, encoded, shots), pools)
        ]

    def _decoded(self, policy: Policy, encoded: Encoded, shots: int) -> Decoded:
        whole = greedy(policy, encoded, shots)
        return whole if self.price is None else until_stop(policy, encoded, whole, self.price)

    @torch.no_grad()
    def decode(
        self,
        queries: Sequence[Query],
        pools: Sequence[Sequence[Example]],
        shots: int,
        how: Decode,
    ) -> list[list[Selection]]:
        """Return the pointers that a decoder finds for each query.

        Args:
            queries: The queries.
            pools: Pool of each query.
            shots: Length of the pointers.
            how: The decoder, such as `decoding.greedy`: a function of the policy, the encoded
                queries and `shots`.

        Raises:
            UserError: The policy cannot pick that many.
        """
        check_shots(shots, self.policy.config.shots)
        groups = []
        for start in range(0, len(queries), DECODE_BATCH):
            part = pools[start : start + DECODE_BATCH]
            encoded = self._encode(queries[start : start + DECODE_BATCH], part)
            groups += _selections(how(self.policy, encoded, shots), part)
        return groups

    def _encode(self, queries: Sequence[Query], pools: Sequence[Sequence[Example]]) -> Encoded:
        # Pools share examples: so each object is compared with the others once, not in every pool.
        held = {id(example): example for pool in pools for example in pool}
        distinct = list(dict.fromkeys(held.values()))
        number = {example: place for place, example in enumerate(distinct)}
        row = {key: number[example] for key, example in held.items()}
        rows = [np.array([row[id(example)] for example in pool], dtype=np.int64) for pool in pools]

        def candidates(some: Rows) -> Floats:
            return self.features.candidates([distinct[i] for i in some.tolist()])

        return encode_pools(self.policy, self.features.queries(queries), rows, candidates)


def _selections(decoded: Decoded, pools: Sequence[Sequence[Example]]) -> list[list[Selection]]:
    """Return the examples to which pointers point, a group of selections for each pool."""
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


def check_shots(shots: int, longest: int) -> None:
    """Raise UserError if a policy can't pick so many demonstrations; it picks 1 to `longest`."""
    if not 1 <= shots <= longest:
        raise UserError(
            f"this selector can pick 1 to {longest} demonstrations, but {shots} were asked for: "
            f"ask for 1 to {longest}."
        )


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
        checkpoint: Folder that a training wrote; or its id on the Hugging Face Hub, user/name,
            which is looked up in the local cache, and fetched with HF_HUB_OFFLINE=0.
        encoder: Folder of the encoder; None: the place from which it was loaded when the selector
            was trained, which may be the shipped one.
        device: Device of the encoder, such as "cpu" or "cuda".
        batch_size: Images or texts in one forward pass of the encoder.
        features: Folder that keeps features of images and texts for later processes; None: they
            are kept in memory.
        price: For a selector that decides when to stop: the reward that one more demonstration (or,
            with `price_per: token`, each token that it adds) must be expected to bring, else it is
            not shown. None: as many are shown as are asked for.
        revision: Branch, tag or commit on the Hub; None: the newest.

    Raises:
        UserError: The checkpoint or the encoder is missing or damaged, the encoder is not the one
            that the selector was trained with, or the price does not fit the selector.
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
            f"folder (`encoder=...`, `--encoder`). Its hash begins with {space.encoder[:12]}."
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
                f"{checkpoint} holds no checkpoint: there is no such folder, and it is {error}: "
                "name the folder that a training wrote, or user/name of one on the Hugging Face "
                "Hub."
            ) from error
    if revision is not None:
        raise UserError(
            f"{checkpoint} is a folder on this machine, which has no revisions: leave revision out."
        )
    return Path(checkpoint)
