"""`lever-plus serve`: a trained selector as an HTTP server, alone or in front of a VLM server."""

from pathlib import Path
from typing import Annotated

import typer

from lever_plus.cli.panels import USE
from lever_plus.cli.select import CANDIDATES, FEATURES, Candidates
from lever_plus.errors import needs

serve_app = typer.Typer()


@serve_app.command(rich_help_panel=USE)
def serve(
    checkpoint: Annotated[
        str,
        typer.Option(help="Folder of a trained selector, or user/name on the Hugging Face Hub."),
    ],
    pool: Annotated[
        Path,
        typer.Option(
            help="Examples to choose from: a list of image, question, answer (ids optional) as "
            "JSON lines, .json or .csv; or the folder of a saved pool."
        ),
    ],
    upstream: Annotated[
        str | None,
        typer.Option(
            help="Base URL of the VLM server to which /v1/chat/completions passes chats on, such "
            "as http://127.0.0.1:8001/v1; its key is read from OPENAI_API_KEY. Without this option "
            "there is no /v1."
        ),
    ] = None,
    vlm: Annotated[
        Path | None,
        typer.Option(
            help='The VLM for /select with "answer": true: a folder, or shipped:vlm.',
        ),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Number of demonstrations to choose.")] = 2,
    candidates: Candidates = CANDIDATES,
    price: Annotated[
        float | None,
        typer.Option(
            help="Price of a demonstration (or of a token, if the selector was trained so), in "
            "units of the reward: fewer are chosen if more are not worth it. Only for selectors "
            "that learned to stop."
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="Text after every question that goes to --upstream. Default: the one that the "
            "selector was trained with."
        ),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the CLIP encoder. Default: where it was in training."),
    ] = None,
    features: Annotated[
        Path, typer.Option(help="Folder that keeps the features of the pool.")
    ] = FEATURES,
    timeout: Annotated[
        float, typer.Option(min=0.01, help="Longest wait for a reply of --upstream, in seconds.")
    ] = 120.0,
    threads: Annotated[
        int,
        typer.Option(min=1, help="CPU threads of the encoder; more are faster for a large one."),
    ] = 1,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; one other than loopback needs a key."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
) -> None:
    """Serve a trained selector over HTTP: selections, and demonstrations put into chats.

    If LEVER_PLUS_API_KEY is set, requests must have that key (Authorization: Bearer ...).
    """
    with needs("serve", "lever-plus serve"):
        import fastapi  # noqa: F401
        import httpx2  # noqa: F401
        import uvicorn  # noqa: F401
    from lever_plus.data.pool_files import read_pool
    from lever_plus.hosts.serve import serving
    from lever_plus.hosts.serve.service import Service
    from lever_plus.hosts.serve.upstream import Upstream
    from lever_plus.hub.threads import use_threads
    from lever_plus.policy.checkpoint import load_checkpoint
    from lever_plus.selectors.learned import load_selector
    from lever_plus.vlm.open import open_vlm
    from lever_plus.vlm.prompt import PromptFormat

    serving.check_host(host)
    use_threads(threads)
    behind = None if upstream is None else Upstream(upstream, timeout)
    selector = load_selector(checkpoint, encoder, features=features, price=price)
    if instruction is None and selector.folder is not None:
        trained_with = load_checkpoint(selector.folder)[2].prompt
        instruction = str(trained_with.get("instruction", ""))
    examples = pool if pool.is_dir() else read_pool(pool)
    service = Service(selector, examples, shots, candidates or None)
    app = serving.make_app(
        service,
        behind,
        None if vlm is None else open_vlm(vlm),
        PromptFormat(instruction=instruction or ""),
    )
    offers = [f"{len(service.pool.examples):,} examples to choose from: POST {{}}/select"]
    if behind is not None:
        offers.append(f"POST {{}}/v1/chat/completions, in front of {behind.shown}")
    said = "; ".join(offers)
    serving.serve(app, host, port, lambda address: typer.echo(said.replace("{}", address)))
