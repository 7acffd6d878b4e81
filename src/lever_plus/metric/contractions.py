"""The 120 contraction rewrites of the VQA metric, derived from their apostrophe forms.

Source: the table in `vqaEval.py` of GT-Vision-Lab/VQA at commit a013f00. Seen as data, each of its
keys is a correct form with exactly one apostrophe forgotten ("couldn'tve" and "couldnt've" both
stand for "couldn't've"), except for three entries that are listed as they are.
"""

from collections.abc import Iterator
from types import MappingProxyType

_APOSTROPHE = "'"

# The capital I of "I'm", "I've" and "I'd've" is part of the original table, so their keys never
# match the lower-cased text: "Im" stays "im". Lower-casing them here would change scores.
_FORMS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am
    mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've
    you'd you'd've you'll you're you've
"""

# Slips of the original that are now part of the metric: two entries change nothing (so "lets" and
# "shes" stay as they are) and one removes the apostrophe instead of restoring it.
_EXCEPTIONS = {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}


def _misspellings(form: str) -> Iterator[str]:
    """Yield the form with each of its apostrophes left out in turn."""
    for position, character in enumerate(form):
        if character == _APOSTROPHE:
            yield form[:position] + form[position + 1 :]


CONTRACTIONS = MappingProxyType(
    {key: form for form in _FORMS.split() for key in _misspellings(form)} | _EXCEPTIONS
)
"""What a whole lower-cased word is rewritten to; a word that is not a key stays as it is."""
