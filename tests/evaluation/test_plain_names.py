"""Plain names of methods: one each, in words that need no other method's name."""

import re

import pytest

from lever_plus.evaluation.methods import Method, methods_of
from lever_plus.evaluation.plain_names import PLAIN_NAMES, explained, plain_name
from tiny_world import REGISTRY, TARGETS

COMMON = {"random", "oracle", "vote", "fixed", "mixed"}
"""Names that are words: their plain names may have them."""


def test_a_name_is_explained_before_it_is_named() -> None:
    assert explained(REGISTRY["sttr"]) == "nearest by question text (sttr)"
    assert explained(REGISTRY["oracle"]) == "a search that knows the true answers (oracle)"


@pytest.mark.parametrize("method", list(REGISTRY), ids=lambda method: method.name)
def test_plain_names_are_plain(method: Method) -> None:
    plain = plain_name(method)
    words = set(re.findall(r"[\w-]+", plain))
    assert not words & ({other.name for other in REGISTRY} - COMMON)
    assert not re.search(r"[A-Z]|\bKL\b", plain)
    assert len(plain) <= 65


def test_every_fixed_method_has_words_of_its_own() -> None:
    fixed = [method for method in REGISTRY if method.name not in ("rce-seed", "best-of-16")]
    assert {method.name for method in fixed} == set(PLAIN_NAMES)
    assert len(set(PLAIN_NAMES.values())) == len(PLAIN_NAMES)


def test_names_from_the_parameters_have_the_words_of_what_they_are() -> None:
    assert plain_name(REGISTRY["rce-seed"]) == plain_name(REGISTRY["rce"])
    assert plain_name(REGISTRY["best-of-16"]).startswith("the best of several tries")
    mine = methods_of({}, TARGETS, selectors=["mine"])["mine"]
    assert explained(mine) == "a selector of your own (mine)"
