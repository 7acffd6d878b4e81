"""Stage vlm of the recipe: trains a tiny VLM on few-shot episodes, with the tiny CLIP's vision."""

from typing import Final

import torch
from transformers import AutoModel

from lever_plus.config.house_words import RecipeParams
from lever_plus.errors import UserError
from lever_plus.files.writing import replacing_folders
from lever_plus.house_words import vlm as tiny_vlm
from lever_plus.house_words.clip import PATCH_SIZE
from lever_plus.house_words.episodes import Kind
from lever_plus.house_words.recipe.places import Places
from lever_plus.house_words.recipe.training import draw_cards, logged
from lever_plus.hub.loading import load_model, load_processor
from lever_plus.hub.threads import use_threads

LOOKS: Final[dict[str, tuple[Kind, ...]]] = {
    "plain": ("plain",),
    "none": ("both",),
    "half_attribute": ("attribute", "both"),
    "half_language": ("language", "both"),
    "both_halves": ("attribute", "language", "both"),
    "both_halves_then_plain": ("attribute", "language", "plain", "plain", "both"),
    "both_halves_then_other": ("attribute", "language", "other", "both"),
    "two_of_each_half_then_other": (
        *("attribute", "attribute", "language", "language"),
        *("other", "both"),
    ),
    "twin": ("both", "both"),
}
"""{name in the log: kinds of an episode's examples, the last of which is asked}, to watch what the
VLM can read so far."""
EPISODES: Final = 256
"""How many episodes are drawn for each of them."""


def run(params: RecipeParams, places: Places, name: str) -> str:
    """Train one of the VLMs, save it in float16, and return a sentence that says where it is.

    Raises:
        UserError: The recipe has no VLM of this name, or the tiny CLIP is missing.
    """
    if name not in params.vlms:
        raise UserError(f"{places.params} has no VLM {name!r}; it has {', '.join(params.vlms)}.")
    settings = params.vlms[name]
    use_threads(params.threads)
    clip_processor = load_processor(str(places.clip), None)
    clip = load_model(AutoModel, str(places.clip), None, "cpu", dtype=torch.float32)
    torch.manual_seed(settings.seed)
    processor = tiny_vlm.make_processor(clip_processor, PATCH_SIZE)
    model = tiny_vlm.make_model(settings, clip, processor)
    cards, pixels = draw_cards(params, clip_processor)
    trainer = tiny_vlm.Trainer(model, processor, cards, tiny_vlm.patch_features(clip, pixels))
    steps = settings.plain_steps + settings.steps
    with (
        replacing_folders([places.model(name)]) as (fresh,),
        logged(places.log(name), steps, lambda: _read(trainer, settings.seed)) as on_step,
    ):
        trainer.train(settings, settings.seed, on_step)
        tiny_vlm.save(model, processor, fresh)
    return f"the tiny VLM {name} is in {places.model(name)}"


def _read(trainer: tiny_vlm.Trainer, seed: int) -> dict[str, float]:
    """Return the share of right answers in each kind of episode of `LOOKS`, on training cards."""
    return {name: trainer.share_right(kinds, EPISODES, seed) for name, kinds in LOOKS.items()}
