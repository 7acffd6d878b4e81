"""Greedy choice of the next token, the same as in transformers' `generate`."""

from typing import Any, Final

import torch
from torch import Tensor

from lever_plus.vlm.engine.caches import Prefixes

OTHER: Final = (
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty"),
    *("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens"),
    *("min_length", "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("exponential_decay_length_penalty", "guidance_scale", "watermarking_config"),
)
"""Settings of generation_config.json that change greedy decoding and are not implemented here."""
NONE: Final[tuple[object, ...]] = (None, 0, 1.0, [])
"""Values of these settings that change nothing."""


class Choice:
    """What a checkpoint says about decoding.

    Attributes:
        ends: Int [m], ids of the tokens that end an answer.
    """

    def __init__(self, model: Any) -> None:
        """Read its generation_config.

        Raises:
            ValueError: It has a setting that only the library implements.
        """
        config = model.generation_config
        if odd := [name for name in OTHER if getattr(config, name, None) not in NONE]:
            raise ValueError(f"its generation_config.json asks for {odd[0]}")
        found = config.eos_token_id
        ends = found if isinstance(found, list) else [] if found is None else [found]
        self.ends = torch.tensor(ends, dtype=torch.long, device=model.device)
        self._penalty = getattr(config, "repetition_penalty", None) or 1.0

    def best(self, logits: Tensor, prefixes: Prefixes) -> Tensor:
        """Return the best next token of each prefix, int [n].

        Args:
            logits: Float [n, vocabulary].
            prefixes: The tokens so far. If the checkpoint sets a repetition penalty, it applies to
                the tokens that occur in them (Keskar et al. 2019, arXiv 1909.05858, section 4.1).
        """
        if self._penalty != 1.0:
            logits = logits.float()
            first = prefixes.ids.gather(1, prefixes.mask.int().argmax(1, keepdim=True))
            said = prefixes.ids.where(prefixes.mask, first)
            scores = logits.gather(1, said)
            less = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
            logits = logits.scatter(1, said, less)
        return logits.argmax(-1)
