"""`lever-plus select`: a trained selector chooses demonstrations for a new question."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lever_plus.cli.panels import USE
from lever_plus.errors import UserError

select_app = typer.Typer()
FEATURES: Final = Path("cache") / "features"
CANDIDATES: Final = 256
Candidates = Annotated[
    int,
    typer.Option(
        min=0,
        help="How many examples the selector sees of a larger pool: those with the most similar "
        "questions. 0 means all.",
    ),
]


@select_app.command(rich_help_panel=USE)
def select(
    checkpoint: Annotated[
        str,
        typer.Option(help="Folder of a trained selector, or user/name on the Hugging Face Hub."),
    ],
    image: Annotated[Path, typer.Option(help="Image of the question.")],
    question: Annotated[str, typer.Option(help="The question.")],
    pool: Annotated[
        Path | None,
        typer.Option(
            help="Examples to choose from: a list of image, question, answer (ids optional) as "
            "JSON lines, .json or .csv; or the folder of a saved pool."
        ),
    ] = None,
    pool_questions: Annotated[
        Path | None, typer.Option(help="Instead of --pool: a questions file in VQAv2 format.")
    ] = None,
    pool_annotations: Annotated[
        Path | None, typer.Option(help="Annotations file for --pool-questions.")
    ] = None,
    pool_images: Annotated[
        Path | None, typer.Option(help="Folder of the images for --pool-questions.")
    ] = None,
    image_name: Annotated[
        str, typer.Option(help="How image files in --pool-images are named.")
    ] = "{image_id:012d}.jpg",
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
    answer: Annotated[
        bool,
        typer.Option("--answer", help="Also ask the VLM, without and with the demonstrations."),
    ] = False,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the CLIP encoder. Default: where it was in training."),
    ] = None,
    vlm: Annotated[
        Path | None,
        typer.Option(
            help="The VLM for --answer: a folder, or shipped:vlm. Default: the one in params.yaml."
        ),
    ] = None,
    features: Annotated[
        Path, typer.Option(help="Folder that keeps the features of images and texts.")
    ] = FEATURES,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Choose demonstrations for a new question from a pool, with a trained selector."""
    from lever_plus.data.examples import Query, hashed_query
    from lever_plus.data.texts import is_plain
    from lever_plus.selectors.learned import load_selector
    from lever_plus.selectors.live_pool import LivePool

    if not is_plain(question):
        raise UserError("--question is empty or has control characters: write a question.")
    examples = _read_pool(pool, pool_questions, pool_annotations, pool_images, image_name)
    selector = load_selector(checkpoint, encoder, features=features, price=price)
    query = hashed_query(Query(str(image), question))
    (chosen,) = LivePool(selector, examples, candidates=candidates or None).select_all(
        [query], shots
    )
    found: dict[str, Any] = {
        "image": str(image),
        "question": question,
        "demonstrations": [
            {
                "question_id": example.question_id,
                "image": example.image,
                "question": example.question,
                "answer": example.answer,
                "probability": _probability(log_prob),
            }
            for example, log_prob in zip(chosen.examples, chosen.log_probs, strict=True)
        ],
    }
    if price is not None:
        found |= {
            "price": price,
            "price_per": selector.policy.config.price_per,
            "asked_for": shots,
        }
    if answer:
        found |= _ask(vlm, query, chosen.examples)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _print(found)


def _read_pool(
    pool: Path | None,
    questions: Path | None,
    annotations: Path | None,
    images: Path | None,
    image_name: str,
) -> Any:
    from lever_plus.data.pool_files import read_pool, read_vqa_pool
    from lever_plus.data.pool_folder import PoolFolder

    if pool is not None and questions is None:
        return PoolFolder(pool, make=False).read() if pool.is_dir() else read_pool(pool)
    if pool is None and questions is not None and annotations is not None and images is not None:
        return read_vqa_pool(questions, annotations, images, image_name)
    raise UserError(
        "name the pool: give either --pool, or all of --pool-questions, --pool-annotations and "
        "--pool-images for files in VQAv2 format."
    )


def _probability(log_prob: float) -> float:
    from math import exp

    return round(exp(log_prob), 6)


def _ask(path: Path | None, query: Any, demonstrations: Any) -> dict[str, str]:
    """Return the VLM's answers without and with demonstrations."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.vlm import open_vlm
    from lever_plus.vlm.open import open_vlm as open_folder
    from lever_plus.vlm.request import Request

    if path is None:
        params = load_params()
        vlm = open_vlm(params.vlm, params.scoring, Paths())
    else:
        vlm = open_folder(path)
    without, with_them = vlm.answers([Request((), query), Request(demonstrations, query)])
    return {"answer_without": without, "answer_with": with_them}


def _stopped(found: dict[str, Any]) -> str:
    """Return a sentence that says how many demonstrations were chosen, and why not more."""
    count, most = len(found["demonstrations"]), found["asked_for"]
    each = " a token" if found["price_per"] == "token" else ""
    price = f"{found['price']:g}{each}"
    if count == most:
        return f"shows all {most}: each is worth {price}"
    what = "another" if count else "a"
    return f"shows {count} of at most {most}: {what} demonstration is not worth {price}"


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    console.print(Text(f"{found['question']} ({found['image']})"))
    for number, shown in enumerate(found["demonstrations"], start=1):
        text = f"{number}. {shown['question']} {shown['answer']}  ({shown['image']})"
        console.print(Text(f"  {text}  probability {shown['probability']:.3f}"))
    if "price" in found:
        console.print(Text(_stopped(found)))
    if "answer_with" in found:
        console.print(Text(f"without demonstrations the VLM says: {found['answer_without']}"))
        console.print(Text(f"with them it says: {found['answer_with']}"))
