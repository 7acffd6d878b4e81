"""The number of torch's threads is set for good, or only for a block."""

from collections.abc import Iterator

import pytest
import torch

from lever_plus.hub.threads import on_threads, use_threads


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_set_for_the_process() -> None:
    for count in (2, 1):
        use_threads(count)
        assert torch.get_num_threads() == count


def test_a_block_gives_back_what_was_set_before_even_if_it_fails() -> None:
    use_threads(2)
    with on_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), on_threads(1):
        _ = 1 / 0
    assert torch.get_num_threads() == 2
