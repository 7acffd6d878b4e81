"""Fetches folders from the Hugging Face Hub, and sends folders to it.

The Hub is not contacted unless the environment allows it: `HF_HUB_OFFLINE=0`. Permission to write
there comes from the Hub's own client (`hf auth login`, or `HF_TOKEN`).
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
"""Characters of an error of the Hub that are quoted."""


class NotFetchedError(Exception):
    """A folder cannot be had; the message says why, as the end of "it is ..."."""


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a hub id, and does not name a path on this machine."""
    there = is_there(text) or is_there(text.partition("/")[0])
    return bool(HUB_ID.fullmatch(text)) and not there


def fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return a folder of the Hub: from the local cache, or fetched if the environment allows it.

    Args:
        name: Its hub id, user/name.
        revision: A branch, a tag or a commit; None: the newest.
        patterns: Patterns of the names of files to fetch.

    Raises:
        NotFetchedError: There is no such folder, or the Hub cannot be reached.
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
            why = f"not reachable on the hub ({_said(error)})"
        raise NotFetchedError(why) from error
    return Path(found)


def send(folder: Path, name: str, files: Sequence[str], *, private: bool, message: str) -> str:
    """Send files of a folder to the Hub and return the address of the commit.

    Args:
        folder: The folder.
        name: Hub id of the repository, user/name; it is made if there is none.
        files: Names of the files.
        private: Whether a repository that is made can be seen only by its owners.
        message: Message of the commit.

    Raises:
        UserError: The environment does not allow it, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    if not HUB_ID.fullmatch(name):
        raise UserError(f"{name!r} is not a name on the Hugging Face Hub: give user/name.")
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
            f"{name} cannot be sent to the Hugging Face Hub ({_said(error)}): check that you are "
            "allowed to write there (`hf auth login`, or HF_TOKEN)."
        ) from error
    return str(commit.commit_url)


def _is_online() -> bool:
    return os.environ.get("HF_HUB_OFFLINE") == "0"


def _said(error: Exception) -> str:
    """Return the first line of an error's message, without secrets."""
    said = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return without_secrets(said)[:LONGEST]
