"""Linear layers on oneDNN give what torch's own give."""

import pytest
import torch
from torch import nn

from lever_plus.vlm.products import OneDnnLinear, use_onednn

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch without oneDNN"
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16), (0, 16), (2, 0, 16)])
def test_results_are_those_of_the_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, values = nn.Linear(16, 24, bias=bias), torch.randn(*shape, dtype=torch.float32)
    expected = layer(values)
    model = nn.Sequential(layer)
    use_onednn(model)
    assert type(model[0]) is OneDnnLinear
    with torch.inference_mode():
        torch.testing.assert_close(model(values), expected.detach(), rtol=1e-5, atol=1e-5)


def test_a_view_is_read_in_its_own_order() -> None:
    layer, values = nn.Linear(16, 24), torch.randn(16, 9).t()
    expected = layer(values).detach()
    use_onednn(model := nn.Sequential(layer))
    with torch.inference_mode():
        torch.testing.assert_close(model(values), expected, rtol=1e-5, atol=1e-5)


def test_other_precisions_and_kinds_of_layers_stay_as_they_are() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.bfloat16), Own(4, 4))
    use_onednn(model)
    assert [type(layer) for layer in model] == [nn.Linear, Own]


def test_without_onednn_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    use_onednn(model := nn.Sequential(nn.Linear(4, 4)))
    assert type(model[0]) is nn.Linear
