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
"""{name: pairs (part of the query, part of the candidate) whose cosines are added}.

sttr compares question texts, siir images, sitr the query's image with the candidate's question, and
mixed both questions and images (MMICES)."""
