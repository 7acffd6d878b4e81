"""Folders that travel: fetched from the Hugging Face Hub, and sent to it.

Nothing is asked of the Hub unless the environment allows it: `HF_HUB_OFFLINE=0`. Whether one may
write there is a matter of the Hub's own client (`hf auth login`, or `HF_TOKEN`).
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lever_plus.errors import UserError
from lever_plus.files.reading import is_there
from lever_plus.files.secrets import without_secrets

HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
LONGEST: Final = 300
"""Characters of what the Hub says of something that failed."""


class NotFetchedError(Exception):
    """A folder is not there; its text is the end of a sentence that says why."""


def is_hub_id(text: str) -> bool:
    """Whether a text names a folder of the Hub, and none of this machine."""
    there = is_there(text) or is_there(text.partition("/")[0])
    return bool(HUB_ID.fullmatch(text)) and not there


def fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return a folder of the Hub: from the local cache, or fetched where that is allowed.

    Args:
        name: Such as user/name.
        revision: A branch, a tag or a commit; None: the newest.
        patterns: The files that are wanted.

    Raises:
        NotFetchedError: It is not there, or the Hub is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    not_there = RepositoryNotFoundError, RevisionNotFoundError, HFValidationError
    online = _is_online()
    try:
        found = snapshot_download(
            name, revision=revision, local_files_only=not online, allow_patterns=[*patterns]
        )
    except Exception as error:
        if not online:
            why = "not in the local Hugging Face cache (HF_HUB_OFFLINE=0 fetches it)"
        elif isinstance(error, not_there):
            why = "not on the hub"
        else:
            why = f"cannot be fetched from the hub ({_said(error)})"
        raise NotFetchedError(why) from error
    return Path(found)


def send(folder: Path, name: str, files: Sequence[str], *, private: bool, message: str) -> str:
    """Send files of a folder to the Hub and return the address of the commit.

    Args:
        folder: Their folder.
        name: Such as user/name; made if it is not there.
        files: Their names.
        private: Whether a folder that is made is seen by its owners alone.
        message: Of the commit.

    Raises:
        UserError: The environment does not allow it, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    if not HUB_ID.fullmatch(name):
        raise UserError(f"{name!r} is no name on the Hugging Face Hub: give user/name.")
    if not _is_online():
        raise UserError(f"nothing is sent to {name}: set HF_HUB_OFFLINE=0 to allow it.")
    try:
        api = HfApi(library_name="lever-plus")
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*files],
            commit_message=message,
        )
    except Exception as error:
        raise UserError(
            f"{name} cannot be sent to the Hugging Face Hub ({_said(error)}): see whether you may "
            "write there (`hf auth login`, or HF_TOKEN)."
        ) from error
    return str(commit.commit_url)


def _is_online() -> bool:
    return os.environ.get("HF_HUB_OFFLINE") == "0"


def _said(error: Exception) -> str:
    """Return the first line of what an error says."""
    said = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return without_secrets(said)[:LONGEST]
