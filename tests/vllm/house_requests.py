"""What is asked of a real server: house words, with the images as large as a test wants."""

from pathlib import Path

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.house_words.maker import make_embedded
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.scorer import Asked
from tiny_world import read_world
from vllm.real_server import NAME

SHOTS = 4


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


def asked(folder: Path, queries: int, image_size: int) -> list[Asked]:
    """Return prompts of 0 to `SHOTS` demonstrations for each of some queries.

    Args:
        folder: Gets the data set.
        queries: How many are asked.
        image_size: Side of the images, in pixels; the shipped VLM's own is 32.
    """
    sizes = {"train": 4 * SHOTS, "dev": 1, "test": queries}
    make_embedded(folder, folder / "images", sizes, 0.4, image_size, seed=5)
    world = read_world(folder)
    pool = world.splits["train"]
    return [
        Asked(tuple(pool[(number + step) % len(pool)] for step in range(shots)), example)
        for number, example in enumerate(world.splits["test"])
        for shots in range(SHOTS + 1)
    ]
