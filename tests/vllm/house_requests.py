"""Requests to a real server: house words, with images as large as a test wants."""

from pathlib import Path

from PIL import Image

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.house_words.maker import make_embedded
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.scorer import Asked
from tiny_world import read_world
from vllm.real_server import NAME

SHOTS = 4
CARD_SIDE = 224
OWN_SIDE = 32
"""Of images that the shipped VLM sees as they are, in pixels.

Others are resized, and the server's image processor gives some pixels another value than the one
that the local model has.
"""


def settings(url: str, **changes: object) -> dict[str, object]:
    """Return the section `vlm` for a server of `real_server`."""
    return {
        **{"kind": "openai", "url": url, "model": NAME, "revision": "shipped"},
        **{"dtype": "float32", "instruction": "", "max_new_tokens": 1, "concurrency": 8},
        **{"timeout_s": 60.0, "patience_s": 120.0, "canary": "off", **changes},
    }


def client(url: str, **changes: object) -> OpenAiVlm:
    """Return the VLM behind a server of `real_server`."""
    return OpenAiVlm(OpenAiVlmParams.model_validate(settings(url, **changes)))


def asked(folder: Path, queries: int, side: int | None = None) -> list[Asked]:
    """Return prompts of 0 to `SHOTS` demonstrations for each of some queries.

    Args:
        folder: Gets the data set.
        queries: How many are asked.
        side: Of the images, in pixels; None leaves them as the data set has them.
    """
    sizes = {"train": 4 * SHOTS, "dev": 1, "test": queries}
    make_embedded(folder, folder / "images", sizes, 0.4, CARD_SIDE, seed=5)
    if side is not None:
        for path in folder.glob("images/*/*.png"):
            Image.open(path).resize((side, side)).save(path)
    world = read_world(folder)
    pool = world.splits["train"]
    return [
        Asked(tuple(pool[(number + step) % len(pool)] for step in range(shots)), example)
        for number, example in enumerate(world.splits["test"])
        for shots in range(SHOTS + 1)
    ]
