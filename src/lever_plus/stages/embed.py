"""Stage embed: examples + CLIP -> features of images, questions and answers."""

from pathlib import Path

import torch

from lever_plus.data.examples import read_splits
from lever_plus.embedding.encoder import ClipEncoder, embed_examples
from lever_plus.params import Params
from lever_plus.stages import paths
from lever_plus.vlm.loading import folder_hash


def run(params: Params) -> str:
    """Encode every example of every split."""
    torch.set_num_threads(params.threads)
    folder = Path(params.embed.path) if params.embed.path else paths.CLIP
    splits = read_splits(paths.PREPARE)
    encoder = ClipEncoder(folder, params.embed.batch_size)
    embed_examples(paths.EMBED, encoder, folder_hash(folder), splits, params.embed.variance)
    return f"{sum(map(len, splits.values()))} examples embedded in {paths.EMBED}"
