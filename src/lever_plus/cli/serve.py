"""`lever-plus serve`: a trained selector behind a port, alone or in front of a VLM server."""

from pathlib import Path
from typing import Annotated

import typer

from lever_plus.cli.select import CANDIDATES, FEATURES, Candidates
from lever_plus.errors import needs

serve_app = typer.Typer()


@serve_app.command()
def serve(
    checkpoint: Annotated[
        str,
        typer.Option(help="Folder of a trained selector, or user/name on the Hugging Face Hub."),
    ],
    pool: Annotated[
        Path,
        typer.Option(
            help="List of image, question, answer (ids optional): JSON lines, .json or .csv; or "
            "the folder of a pool that is kept."
        ),
    ],
    upstream: Annotated[
        str | None,
        typer.Option(
            help="Base URL of the VLM server that /v1/chat/completions goes to, such as "
            "http://127.0.0.1:8001/v1; its key is OPENAI_API_KEY. Without it there is no /v1."
        ),
    ] = None,
    vlm: Annotated[
        Path | None,
        typer.Option(help='VLM for "answer": true of /select: a folder or shipped:vlm.'),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Demonstrations to choose.")] = 2,
    candidates: Candidates = CANDIDATES,
    price: Annotated[
        float | None,
        typer.Option(
            help="What a demonstration must be worth, in points of reward, so that fewer are "
            "chosen where more do not help; for selectors that learned to stop."
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="Text after every question that goes to the upstream; if none, that which the "
            "selector was trained with."
        ),
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of the CLIP; where it was in training if none.")
    ] = None,
    features: Annotated[
        Path, typer.Option(help="Folder in which features of the pool are kept.")
    ] = FEATURES,
    timeout: Annotated[
        float, typer.Option(min=0.01, help="Longest time for a reply of the upstream, seconds.")
    ] = 120.0,
    threads: Annotated[
        int,
        typer.Option(min=1, help="CPU threads of the encoder; more for one that is large."),
    ] = 1,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Serve a trained selector: POST /select, and chats with demonstrations put in.

    With LEVER_PLUS_API_KEY set, requests must have that key (Authorization: Bearer ...).
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
        offers.append(f"POST {{}}/v1/chat/completions, before {behind.shown}")
    said = "; ".join(offers)
    serving.serve(app, host, port, lambda address: typer.echo(said.replace("{}", address)))
