"""Stage clip of the recipe: trains the tiny CLIP on cards and captions."""

import torch

from lever_plus.config.house_words import CLIP, RecipeParams
from lever_plus.files.writing import replacing_folders
from lever_plus.house_words.clip import make_model, make_processor, train
from lever_plus.house_words.recipe.places import Places
from lever_plus.house_words.recipe.training import draw_cards, logged
from lever_plus.hub.threads import use_threads


def run(params: RecipeParams, places: Places) -> str:
    """Train the tiny CLIP, save it in float16, and return a sentence that says where it is."""
    use_threads(params.threads)
    torch.manual_seed(params.seed)
    processor = make_processor()
    model = make_model(params.clip, processor)
    data = draw_cards(params, processor)
    with (
        replacing_folders([places.clip]) as (fresh,),
        logged(places.log(CLIP), params.clip.steps) as on_step,
    ):
        train(model, processor, data, params.clip, params.seed, on_step)
        model.half().save_pretrained(fresh)
        processor.save_pretrained(fresh)
    return f"the tiny CLIP is in {places.clip}"
