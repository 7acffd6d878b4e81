"""A frozen VLM for one's own code: by folder or by server, with or without an answer store."""

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from lever_plus.config.base import Section
from lever_plus.config.scoring import RayParams, ScoringParams
from lever_plus.config.vlm import HuggingFaceVlmParams, OpenAiVlmParams, PromptParams
from lever_plus.errors import UserError
from lever_plus.files.checking import explained
from lever_plus.vlm.backends.open import open_backend
from lever_plus.vlm.backends.plugin import checked
from lever_plus.vlm.request import Backend
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm

ARGUMENTS: Final = {"path": "model"}
"""{setting: the argument that gives it}, where the names differ."""
Settings = TypeVar("Settings", bound=Section)


def open_vlm(
    model: str | Path | Backend,
    *,
    url: str | list[str] | None = None,
    store: str | Path | None = None,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    style: str = "chat",
    instruction: str = "",
    max_new_tokens: int = 10,
    workers: int = 1,
) -> StoredVlm:
    """Open a frozen VLM; its weights are loaded when it is first asked.

    Args:
        model: Hugging Face folder, hub id or "shipped:vlm"; with `url`, the name that the server
            offers it under; or a back end of your own, for which `store` is the only setting.
        url: Base URL of an OpenAI-compatible server, such as "http://127.0.0.1:8000/v1", or those
            of several that offer the same model.
        store: SQLite file in which answers are kept, so that nothing is asked twice.
        revision: Commit of a hub id; with `url`, what identifies the weights.
        device: Such as "cpu" or "cuda".
        dtype: "float32", "float16" or "bfloat16".
        style: "chat" (the model's own chat template) or "flat".
        instruction: Text after every question, such as "Answer in one word.".
        max_new_tokens: Longest answer.
        workers: Forward passes side by side on a CPU.

    Raises:
        UserError: There is no such model, a package that it needs is missing, an argument is none
            of the values that it may have, or a back end lacks something that `Backend` asks for.
    """
    scoring = _made(
        ScoringParams,
        store="none" if store is None else str(store) if isinstance(store, Path) else store,
        features_megabytes=0,
        executor="local",
        ray=RayParams(address=None, actors=1, num_cpus=1.0, num_gpus=0.0),
    )
    if not isinstance(model, str | Path):
        own = checked(model, "the VLM")
        return StoredVlm(own, None if store is None else Store(Path(store)))
    settings: HuggingFaceVlmParams | OpenAiVlmParams
    if url is None:
        settings = _made(
            HuggingFaceVlmParams,
            kind="huggingface",
            path=str(model),
            revision=revision,
            device=device,
            dtype=dtype,
            attn_implementation="sdpa",
            prompt=_made(PromptParams, style=style, instruction=instruction),
            max_new_tokens=max_new_tokens,
            num_beams=1,
            batch_tokens=16384,
            segment_megabytes=2048,
            prefix_reuse=True,
            workers=workers,
        )
    else:
        settings = _made(
            OpenAiVlmParams,
            kind="openai",
            url=url,
            model=str(model),
            revision=revision or "unknown",
            dtype=dtype,
            instruction=instruction,
            max_new_tokens=max_new_tokens,
            concurrency=8,
            timeout_s=120.0,
            patience_s=120.0,
            canary="mark",
        )
    kept = None if store is None else Store(Path(store))
    return StoredVlm(open_backend(settings, scoring, kept), kept)


def _made(made: type[Settings], /, **values: Any) -> Settings:
    """Return settings; UserError names the argument that none can have."""
    try:
        return made(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        why = explained(first, ARGUMENTS.get(name, name))
        raise UserError(f"open_vlm: {why}: correct this argument.") from error
