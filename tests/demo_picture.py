"""Writes docs/demo.png: `lever-plus demo` in a browser, down to the reasons for the picks.

`python tests/demo_picture.py http://127.0.0.1:7860`, with the page running beside it.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from chromium import opened

WIDTH, HEIGHT, SCALE = 1200, 1600, 1.25
COLOURS = 256
TARGET = Path(__file__).parent.parent / "docs" / "demo.png"


def main(address: str) -> None:
    """Open the page, wait for the answers to its first question, and write the picture."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with opened(Path(folder)) as tab:
            tab.size(WIDTH, HEIGHT, scale=SCALE)
            tab.open(address)
            tab.wait("document.querySelectorAll('.lp-moves .lp-card').length > 0")
            tab.wait("[...document.images].every(image => image.complete)")
            end = tab.value("document.querySelector('.lp-why').getBoundingClientRect().bottom")
            tab.picture(TARGET, WIDTH, int(end) + 16)
        with Image.open(TARGET) as picture:
            picture.convert("RGB").quantize(COLOURS, kmeans=3).save(TARGET, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
