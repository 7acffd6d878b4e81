"""`open_vlm`: a frozen VLM for your own code, from a folder or a server, maybe with a store."""

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
"""{name of the setting: name of the argument}, if they differ."""
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
    """Open a frozen VLM; its weights are loaded at the first request.

    Args:
        model: Hugging Face folder, hub id or "shipped:vlm"; with `url`, the model's name on the
            server; or a back end of your own (`Backend`), for which only `store` is used.
        url: Base URL of an OpenAI-compatible server, such as "http://127.0.0.1:8000/v1", or a list
            of URLs of several servers that offer the same model.
        store: SQLite file in which answers are kept, so that no request is computed twice.
        revision: Commit of a hub id; with `url`, a text of yours that identifies the weights.
        device: Device of PyTorch, such as "cpu" or "cuda".
        dtype: Precision of the weights: "float32", "float16" or "bfloat16".
        style: Prompt style: "chat" (the model's own chat template) or "flat".
        instruction: Text after every question, such as "Answer in one word.".
        max_new_tokens: Largest number of tokens in an answer.
        workers: How many forward passes run at the same time on a CPU.

    Returns:
        The VLM; call its `answers` or `log_likelihoods` with requests.

    Raises:
        UserError: There is no such model, a package that it needs is missing, an argument has a
            value that it may not have, or the back end lacks a part of `Backend`.
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
    """Return settings; the UserError for a wrong value names the argument."""
    try:
        return made(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        why = explained(first, ARGUMENTS.get(name, name))
        raise UserError(f"open_vlm: {why}: correct this argument.") from error
