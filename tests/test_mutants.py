"""The list of mutations does not go stale: each one's text is in the source, once."""

import pytest

from mutants import occurrences
from mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.why}")
def test_the_text_of_a_mutation_is_in_the_source_once(mutation: Mutation) -> None:
    assert occurrences(mutation) == 1
    assert mutation.after != mutation.before
