"""The similarities by which examples are ranked: their names, and what each compares."""

from typing import Final

STTR: Final = "sttr"
SIIR: Final = "siir"
SITR: Final = "sitr"
MIXED: Final = "mixed"
SIMILARITIES: Final = {
    STTR: (("question", "question"),),
    SIIR: (("image", "image"),),
    SITR: (("image", "question"),),
    MIXED: (("question", "question"), ("image", "image")),
}
"""Parts of query and candidate whose cosines are added.

STTR by question text, SIIR by image, SITR by the query's image and the candidate's text, mixed by
text and image (MMICES)."""
