"""Images in the forms that other programs use: paths, data URLs, bytes, base64."""

import base64
import binascii
import hashlib
import mimetypes
import re
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from types import TracebackType
from typing import Final, Self

from lever_plus.data.images import MOST_BYTES, opened_sha256
from lever_plus.errors import UserError
from lever_plus.files.reading import read_bytes
from lever_plus.files.writing import replacing

_DATA_URL: Final = re.compile(r"data:image/[\w.+-]+;base64,(?P<content>.*)", re.DOTALL)
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_BASE64: Final = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/\s]{60,}={0,2}\s*")
"""Matches the base64 of a JPEG, PNG, GIF or WebP file. "/9j/..." could be a path, but a path is not
that long without a dot."""
ADVICE: Final = "give the path of an image file, or a data URL (data:image/png;base64,...)"


class Pictures:
    """Gives every image a file: one without is written to a folder, named by its content's hash."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """Keep the folder; None makes a temporary one, which is removed with this object."""
        self._temporary = TemporaryDirectory(prefix="lever_plus") if folder is None else None
        self._folder = Path(self._temporary.name if self._temporary else str(folder))

    def __enter__(self) -> Self:
        """Return itself; a temporary folder is removed when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove a temporary folder."""
        if self._temporary:
            self._temporary.cleanup()

    def path(self, image: object) -> str:
        """Return the path of an image's file, which is checked to open.

        Args:
            image: A path, a data URL, the bytes of an image file, or the base64 of a JPEG, PNG, GIF
                or WebP file.

        Raises:
            UserError: The image is none of these, or can't be opened. Nothing is downloaded.
        """
        if isinstance(image, bytes | bytearray):
            return self._written(bytes(image))
        if not isinstance(image, str | Path) or not str(image).strip():
            shown = repr(image)[:80] if image else "nothing"
            raise UserError(f"{shown} is not an image: {ADVICE}.")
        text = str(image)
        if text.startswith("data:"):
            found = _DATA_URL.fullmatch(text)
            return self._written(_decoded(found["content"] if found else "", text))
        if _BASE64.fullmatch(text):
            return self._written(_decoded("".join(text.split()), text))
        if _ADDRESS.match(text) and "://" in text:
            raise UserError(f"{text[:80]} is an address, but nothing is downloaded: {ADVICE}.")
        opened_sha256(text)
        return text

    def _written(self, content: bytes) -> str:
        path = self._folder / hashlib.sha256(content).hexdigest()
        if not path.is_file() and self._temporary:
            # Replaced in one step; not synced to disk, because the folder is temporary.
            with NamedTemporaryFile(dir=self._folder, delete=False) as beside:
                beside.write(content)
            Path(beside.name).replace(path)
        elif not path.is_file():
            with replacing(path) as fresh:
                fresh.write_bytes(content)
        try:
            opened_sha256(path)
        except UserError as error:
            path.unlink(missing_ok=True)
            # The caller gave bytes, and does not know the name of this file.
            raise UserError(str(error).replace(f"image {path}", "the image")) from error
        return str(path)


def file_url(path: str | Path) -> str:
    """Return a file's bytes as a data URL; unchanged bytes keep the image's hash the same.

    Raises:
        UserError: The file can't be read, or is too large.
    """
    content = read_bytes(Path(path), ADVICE, limit=MOST_BYTES)
    kind = mimetypes.guess_type(str(path))[0] or ""
    kind = kind if kind.startswith("image/") else "image/x-unknown"
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _decoded(text: str, given: str) -> bytes:
    """Return the bytes of a base64 text; raise UserError if it has none or too many."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content or len(content) > MOST_BYTES:
        raise UserError(f"{given[:60]}... is not the data URL of an image: {ADVICE}.")
    return content
