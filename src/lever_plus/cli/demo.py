"""`lever-plus demo`: a page to try out which demonstrations each method shows, and why."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lever_plus.cli.panels import USE
from lever_plus.cli.select import FEATURES
from lever_plus.errors import UserError

demo_app = typer.Typer()


@demo_app.command(rich_help_panel=USE)
def demo(
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Folder of a trained selector, or user/name on the Hugging Face Hub. Default: the "
            "pipeline's."
        ),
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            help="List of image, question, answer (ids optional): JSON lines, .json or .csv. "
            "Default: the pipeline's examples."
        ),
    ] = None,
    vlm: Annotated[
        Path | None,
        typer.Option(help="The VLM: a folder, or shipped:vlm. Default: the one in params.yaml."),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the CLIP encoder. Default: where it was in training."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. There is no password: whoever reaches another address than "
            "the default can use the page."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    shots: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of demonstrations to show. Default: as many as the selector was trained "
            "with.",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Price of a demonstration (or of a token, if the selector was trained so), in "
            "units of the reward; only for selectors that learned to stop. The page can change it.",
        ),
    ] = None,
) -> None:
    """Serve a page that shows what each method shows the VLM, why, and what the VLM answers."""
    from lever_plus.hosts.demo.server import serve

    play = _playground(checkpoint, pool, vlm, encoder, shots)
    first = play.first_price(price)
    typer.echo(f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}")
    serve(play, host, port, first)


def _playground(
    checkpoint: str | None,
    pool: Path | None,
    vlm: Path | None,
    encoder: Path | None,
    shots: int | None,
) -> Any:
    """Return the content of the page; what is not named comes from the pipeline in this folder."""
    from lever_plus.config.file import load_params
    from lever_plus.data.pool_files import read_pool
    from lever_plus.hosts.demo.play import Playground
    from lever_plus.hosts.demo.world import own_world
    from lever_plus.pipeline.demo import pipeline_world, trained_checkpoint
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.vlm import open_vlm
    from lever_plus.selectors.learned import load_selector
    from lever_plus.vlm.open import open_vlm as open_folder

    paths = Paths()
    if checkpoint is None or pool is None or vlm is None:
        try:
            params = load_params()
        except UserError as error:
            elsewhere = "outside a project, name --checkpoint, --pool and --vlm"
            raise UserError(f"{str(error).rstrip('.')}; {elsewhere}.") from error
    trained = checkpoint or trained_checkpoint(paths, params)
    selector = load_selector(trained, encoder, features=FEATURES)
    world = own_world(pool.name, read_pool(pool)) if pool else pipeline_world(paths, params)

    def opened() -> Any:
        return open_folder(vlm) if vlm else open_vlm(params.vlm, params.scoring, paths)

    return Playground(selector, opened, world, shots or selector.policy.config.shots)
