"""Stage vlm of the recipe: the tiny CLIP and few-shot episodes -> a tiny VLM."""

import torch
from transformers import AutoModel, AutoProcessor

from lever_plus.config.house_words import RecipeParams
from lever_plus.errors import UserError
from lever_plus.files.writing import replacing_folders
from lever_plus.house_words import vlm as tiny_vlm
from lever_plus.house_words.clip import PATCH_SIZE
from lever_plus.house_words.recipe.places import Places
from lever_plus.house_words.recipe.training import draw_cards, logged
from lever_plus.hub.loading import load_model, load_processor
from lever_plus.hub.threads import use_threads


def run(params: RecipeParams, places: Places, name: str) -> str:
    """Train one of the VLMs, save it in float16, and say where it is.

    Raises:
        UserError: The recipe has no VLM of this name, or the tiny CLIP is missing.
    """
    if name not in params.vlms:
        raise UserError(f"{places.params} has no VLM {name!r}, but {', '.join(params.vlms)}.")
    settings = params.vlms[name]
    use_threads(params.threads)
    clip_processor = load_processor(AutoProcessor, str(places.clip), None)
    clip = load_model(AutoModel, str(places.clip), None, "cpu", dtype=torch.float32)
    torch.manual_seed(settings.seed)
    processor = tiny_vlm.make_processor(clip_processor, PATCH_SIZE)
    model = tiny_vlm.make_model(settings, clip, processor)
    cards, pixels = draw_cards(params, clip_processor)
    trainer = tiny_vlm.Trainer(model, processor, cards, tiny_vlm.patch_features(clip, pixels))
    steps = settings.plain_steps + settings.steps
    with (
        replacing_folders([places.model(name)]) as (fresh,),
        logged(places.log(name), steps) as on_step,
    ):
        trainer.train(settings, settings.seed, on_step)
        model.half().save_pretrained(fresh)
        processor.save_pretrained(fresh)
    return f"the tiny VLM {name} is in {places.model(name)}"
