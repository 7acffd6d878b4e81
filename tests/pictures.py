"""Small image files for tests that need one, whatever it shows."""

from pathlib import Path

from PIL import Image


def draw(path: Path, gray: int = 0) -> bytes:
    """Write a picture of one gray, in the format of the path's ending; return the file's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (gray, gray, gray)).save(path)
    return path.read_bytes()
