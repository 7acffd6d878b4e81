"""`lever-plus world`: the stages of the recipe that makes the shipped models (`make world`)."""

from importlib import import_module
from typing import Annotated

import typer

from lever_plus.tracking.lineage import PACKAGE

world_app = typer.Typer(
    help="The recipe that makes the shipped models; `make world` runs all of it.",
    no_args_is_help=True,
)


def _run(stage: str, *given: str) -> None:
    from lever_plus.config.house_words import CLIP
    from lever_plus.house_words.recipe.places import Places, read_recipe
    from lever_plus.house_words.recipe.ship import check_made

    places = Places()
    params = read_recipe(places.params)
    check_made({"vlm": (CLIP,), "table": (*params.vlms,)}.get(stage, ()), places)
    module = import_module(f"{PACKAGE}.house_words.recipe.{stage}")
    typer.echo(f"{stage}: {module.run(params, places, *given)}")


@world_app.command("clip")
def world_clip() -> None:
    """Train the tiny CLIP."""
    _run("clip")


@world_app.command("vlm")
def world_vlm(
    name: Annotated[str, typer.Argument(help="vlm, or vlm-2.")],
) -> None:
    """Train one of the tiny VLMs in recipes/house_words/params.yaml, using the tiny CLIP."""
    _run("vlm", name)


@world_app.command("table")
def world_table() -> None:
    """Measure what the tiny VLMs read from demonstrations."""
    _run("table")


@world_app.command("ship")
def world_ship() -> None:
    """Copy the models that the recipe made into the package."""
    _run("ship")
