"""The benchmarks of selection and serving run on little data; times are not checked."""

import pytest

from lever_plus.bench import selection, serving
from lever_plus.config.file import load_params
from lever_plus.config.params import Params
from lever_plus.features import index
from tiny_world import ROOT


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.mark.slow
def test_choosing_is_timed_apart_from_encoding(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "QUERIES", 12)
    monkeypatch.setattr(index, "SMALLEST", 1000)
    found = selection.run(params, large=1500)
    assert list(found) == ["4 of 64", "4 of 1500, exact", "4 of 1500, approximate"]
    for figures in found.values():
        assert figures["queries"] == 12
        assert figures["choose_together_ms"] > 0
        assert 0 < figures["choose_p50_ms"] <= figures["choose_p95_ms"]
        assert 0 < figures["encode_p50_ms"] <= figures["encode_p95_ms"]
    assert 0.5 < found["4 of 1500, approximate"]["recall"] <= 1


@pytest.mark.long
def test_the_proxy_loses_no_request_of_50_clients(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "ALONE", 10)
    found = serving.run(params, requests=100)
    assert list(found) == ["1 client", "50 clients"]
    assert [figures["lost"] for figures in found.values()] == [0, 0]
    assert [figures["requests"] for figures in found.values()] == [10, 100]
    assert all(0 < figures["added_p50_ms"] < 60_000 for figures in found.values())
