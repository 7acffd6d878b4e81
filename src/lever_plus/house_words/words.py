"""The vocabulary of the embedded data set: attributes, languages, values and house words.

Every organisation has its own words and its own way of writing answers. Here each of 24 house words
means one of four attributes of a card, and each of 16 means one of four answer languages. These
meanings are fixed in the data set; the VLM never learns them and can only read them from
demonstrations.
"""

from typing import Final

ATTRIBUTES: Final = ("digit", "ink", "pattern", "corner")
LANGUAGES: Final = ("english", "spanish", "french", "german")

VALUES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "digit": {
        "english": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        "spanish": (
            "cero",
            "uno",
            "dos",
            "tres",
            "cuatro",
            "cinco",
            "seis",
            "siete",
            "ocho",
            "nueve",
        ),
        "french": ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
        "german": (
            "null",
            "eins",
            "zwei",
            "drei",
            "vier",
            "fünf",
            "sechs",
            "sieben",
            "acht",
            "neun",
        ),
    },
    "ink": {
        "english": ("red", "blue", "green", "purple", "brown", "black"),
        "spanish": ("rojo", "azul", "verde", "morado", "marrón", "negro"),
        "french": ("rouge", "bleu", "vert", "violet", "marron", "noir"),
        "german": ("rot", "blau", "grün", "lila", "braun", "schwarz"),
    },
    "pattern": {
        "english": ("blank", "striped", "dotted", "checked", "diagonal"),
        "spanish": ("liso", "rayado", "punteado", "cuadriculado", "sesgado"),
        "french": ("vierge", "rayé", "pointillé", "quadrillé", "oblique"),
        "german": ("leer", "gestreift", "gepunktet", "kariert", "schräg"),
    },
    "corner": {
        "english": ("northwest", "northeast", "southwest", "southeast"),
        "spanish": ("noroeste", "noreste", "suroeste", "sureste"),
        "french": ("nord-ouest", "nord-est", "sud-ouest", "sud-est"),
        "german": ("nordwest", "nordost", "südwest", "südost"),
    },
}
"""`VALUES[attribute][language][value index]` is the one-word answer."""

HOUSE_ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "digit": ("brindle", "quorp", "taviel", "mernock", "sollit", "drask"),
    "ink": ("fennow", "plimsy", "garrul", "ostrev", "wickam", "jorvane"),
    "pattern": ("lunter", "cravic", "hebdon", "zillow", "pranth", "moxley"),
    "corner": ("ulvine", "stobber", "keffin", "rondal", "yarrip", "tessock"),
}
"""{attribute: the house words that mean it}."""

HOUSE_STYLES: Final[dict[str, tuple[str, ...]]] = {
    "english": ("alderic", "bosk", "corvish", "dunmere"),
    "spanish": ("eskar", "florp", "gantish", "holloway"),
    "french": ("ivorn", "jessamy", "kelpic", "lorrow"),
    "german": ("mundish", "norvic", "ombrel", "pellish"),
}
"""{answer language: the house words that mean it}."""

PHRASINGS: Final = (
    "What is the {attribute}? Answer in {style}.",
    "Name the {attribute} in {style}.",
    "In {style}, which {attribute} is this?",
    "Which {attribute} is it, in {style}?",
    "Give me the {attribute}, written in {style}.",
)


def plain_style(language: str) -> str:
    """Return the plain word for a language, as questions write it."""
    return language.capitalize()
