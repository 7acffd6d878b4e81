"""Linear layers on oneDNN give the same results as torch's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lever_plus.hub import linear as products
from lever_plus.hub.linear import OneDnnLinear, linear, use_onednn, use_torch

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


class Tied(nn.Module):
    """A model whose head shares its embedding's weights, and that has one layer under two names."""

    def __init__(self) -> None:
        """Make the model."""
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.GELU())
        self.again = self.inner[0]
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.again(self.inner(self.embedding(ids))))
        return logits


def test_layers_take_the_places_of_others_with_the_same_weights_and_give_them_back() -> None:
    model, ids = Tied().eval(), torch.arange(9)
    before, state = model(ids).detach(), model.state_dict()
    use_onednn(model)
    assert [type(m) for m in (model.inner[0], model.again, model.head)] == [OneDnnLinear] * 3
    assert model.head.weight is model.embedding.weight
    assert not model.head.training
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(after[name].data_ptr() == state[name].data_ptr() for name in state)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids), before, rtol=1e-5, atol=1e-5)
    use_torch(model)
    assert [type(m) for m in (model.inner[0], model.again, model.head)] == [nn.Linear] * 3
    assert model.head.weight is model.embedding.weight
    assert model(ids).equal(before)


def test_without_onednn_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_available", lambda: False)
    use_onednn(model := nn.Sequential(nn.Linear(4, 4)))
    assert type(model[0]) is nn.Linear


def _gradients(product: Callable[..., Tensor], shape: tuple[int, ...]) -> list[Tensor]:
    """Return output and gradients; the weight is a view, and so is the gradient that comes in."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(*shape, 32, generator=generator, requires_grad=True)
    whole = torch.randn(24, 64, generator=generator, requires_grad=True)
    bias = torch.randn(24, generator=generator, requires_grad=True)
    out = product(values, whole[:, 16:48], bias)
    wanted = torch.randn(24, *shape, generator=generator).movedim(0, -1)
    return [out.detach(), *torch.autograd.grad(out, (values, whole, bias), wanted)]


@pytest.mark.parametrize("shape", [(600,), (40, 16), (8, 16, 5)])
def test_gradients_are_those_of_the_layer(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    asked = []
    product = products._product
    monkeypatch.setattr(products, "_product", lambda *a: asked.append(a) or product(*a))
    found = _gradients(linear, shape)
    assert len(asked) == 1
    for one, other in zip(found, _gradients(nn.functional.linear, shape), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    values, weight = torch.randn(1024, 32), torch.randn(8, 32, requires_grad=True)
    linear(values, weight).sum().backward()
    assert values.grad is None
    torch.testing.assert_close(weight.grad, values.sum(0).expand(8, 32), rtol=1e-4, atol=1e-4)


def test_double_precision_is_torch_s_own() -> None:
    values = torch.randn(1024, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 32, dtype=torch.float64)
    assert torch.equal(linear(values, weight), nn.functional.linear(values, weight))
