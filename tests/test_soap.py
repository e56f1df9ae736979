"""The optimiser SOAP."""

import pytest

torch = pytest.importorskip("torch")

from eocodec.flow.soap import Soap  # noqa: E402


def quadratic(optimiser_of: "object", steps: int = 200) -> float:
    """What is left of an ill-conditioned quadratic whose axes are not the parameters' own."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
    scale = torch.logspace(0, -2, 12)
    target = torch.randn(6, 12, generator=generator)
    w = torch.nn.Parameter(torch.zeros(6, 12))
    optimiser = optimiser_of([w])  # type: ignore[operator]
    for k in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - k / steps)
        optimiser.zero_grad()
        loss = (((w - target) @ turn) * scale).square().sum()
        loss.backward()
        optimiser.step()
    return float((((w.detach() - target) @ turn) * scale).square().sum())


@pytest.mark.slow
def test_soap_follows_turned_axes_better_than_adam() -> None:
    soap = quadratic(lambda p: Soap(p, lr=0.05))
    adam = quadratic(lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.95, 0.95)))
    assert soap < 0.5 * adam


def test_bases_stay_orthogonal_and_kernels_have_three_axes() -> None:
    conv = torch.nn.Conv2d(4, 6, 3)
    optimiser = Soap(conv.parameters(), lr=1e-2, every=2)
    for _ in range(21):
        optimiser.zero_grad()
        conv(torch.randn(2, 4, 8, 8)).square().mean().backward()
        optimiser.step()
    bases = optimiser.state[conv.weight]["bases"]
    assert [len(b) for b in bases] == [6, 4, 9]
    for basis in bases:
        assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-4)
    assert optimiser.state[conv.bias]["bases"] == [None]


def test_a_saved_state_goes_on_as_if_nothing_had_been_saved() -> None:
    def run(interrupted: bool) -> "torch.Tensor":
        torch.manual_seed(3)
        w = torch.nn.Parameter(torch.randn(5, 7))
        optimiser = Soap([w], lr=1e-2, every=3)
        for k in range(12):
            if interrupted and k == 6:
                saved = optimiser.state_dict()
                optimiser = Soap([w], lr=1e-2, every=3)
                optimiser.load_state_dict(saved)
            optimiser.zero_grad()
            (w @ torch.arange(7.0)[:, None]).tanh().sum().backward()
            optimiser.step()
        return w.detach()

    assert torch.equal(run(False), run(True))


def test_parameters_of_one_shape_move_as_each_would_alone() -> None:
    """Also when one of them has no gradient for a while, and after loading a state."""

    def run(together: bool) -> "list[torch.Tensor]":
        torch.manual_seed(1)
        parameters = [torch.nn.Parameter(torch.randn(4, 5)) for _ in range(3)]
        made = [Soap(parameters, lr=1e-2, every=3)] if together else [Soap([p], lr=1e-2, every=3) for p in parameters]
        for k in range(14):
            for p in parameters:
                p.grad = None
            for number, p in enumerate(parameters):
                if number != 1 or k % 5:
                    (p @ torch.arange(5.0)[:, None] * (number + 1)).tanh().sum().backward()
            if k == 8:
                for optimiser in made:
                    optimiser.load_state_dict(optimiser.state_dict())
            for optimiser in made:
                optimiser.step()
        return [p.detach() for p in parameters]

    for one, other in zip(run(True), run(False), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
