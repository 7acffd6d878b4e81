"""What the demo shows by default: the pipeline's own selector, test questions and pools."""

from pathlib import Path
from typing import Final

import numpy as np

from lever_plus.config.names import GRPO, GRPO_STOP
from lever_plus.config.params import Params
from lever_plus.data.examples import Example, read_splits
from lever_plus.data.pools import read_pools
from lever_plus.errors import UserError
from lever_plus.hosts.demo.world import QUESTIONS, World
from lever_plus.house_words.maker import LATENT, read_meanings
from lever_plus.pipeline.paths import Paths, weights_of

ADVICE: Final = (
    "run `make repro` (or `dvc repro`) first, or name a trained selector with --checkpoint and "
    "its examples with --pool"
)
HOUSE_WORDS: Final = (
    "The questions contain house words: a word such as moxley means nothing to the model until a "
    "demonstration shows what it asks for, or in which language to answer"
)
STREAM: Final = 30


def trained_checkpoint(paths: Paths, params: Params) -> Path:
    """Return the checkpoint of the selector that the page shows.

    It is that of the first training seed: the policy that can stop, or else GRPO's.

    Raises:
        UserError: Nothing is trained yet.
    """
    seed = params.training_seeds[0]
    for method in (GRPO_STOP, GRPO):
        folder = paths.trained(method, seed)
        if weights_of(folder).is_file():
            return folder
    raise UserError(f"{paths.trained(GRPO, seed)} holds no trained selector yet: {ADVICE}.")


def pipeline_world(paths: Paths, params: Params) -> World:
    """Return the first test questions, each with its own pool, and a pool for any other question.

    The pool for a user's own questions consists of training examples that are drawn at random, as
    many as the other pools have; the same seed draws the same examples.

    Raises:
        UserError: The data are not prepared yet, or damaged.
    """
    if not paths.prepare.is_dir() or not paths.pools.is_file():
        raise UserError(f"{paths.prepare} holds no examples yet: {ADVICE}.")
    splits, pools = read_splits(paths.prepare, paths.root), read_pools(paths.pools)
    train = {example.question_id: example for example in splits["train"]}
    gallery = splits["test"][:QUESTIONS]
    embedded = (paths.source / LATENT).is_file()
    meanings = read_meanings(paths.source) if embedded else {}
    return World(
        name=HOUSE_WORDS if embedded else "The data of this project",
        pool=_drawn(splits["train"], params.pool.size, params.seed),
        gallery=gallery,
        pools={
            e.question_id: [train[i] for i in pools.of(e.question_id)]
            for e in gallery
            if e.question_id in pools.ids
        },
        meanings={
            i: f"{meaning.attribute}, in {meaning.language.capitalize()}"
            for i, meaning in meanings.items()
        },
    )


def _drawn(examples: list[Example], size: int, seed: int) -> list[Example]:
    rng = np.random.default_rng([seed, STREAM])
    places = rng.choice(len(examples), min(size, len(examples)), replace=False)
    return [examples[place] for place in sorted(places.tolist())]
