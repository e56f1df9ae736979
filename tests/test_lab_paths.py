"""Paths: Hamilton–Jacobi equation and determinants where they are known, scenes that compose, what is learnt."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from eocodec.errors import EocodecError
from eocodec.lab.data.pictures import digits
from eocodec.lab.paths import learning
from eocodec.lab.paths.frozen import OPERATIONS, carried, frozen_errors, learn_frozen
from eocodec.lab.paths.learning import PathTraining, composition, encoded_paths, equivariance, train_paths
from eocodec.lab.paths.movers import FlowMover, LinearMover
from eocodec.lab.paths.potential import NetPotential, Potential, log_diffused, residual, step
from eocodec.lab.paths.scenes import TRANSFORMATIONS, transformed
from eocodec.lab.subjects.linear import PrincipalComponents
from eocodec.lab.subjects.subject import Core

pytestmark = pytest.mark.slow


class Plane(Potential):
    """u = a · z − ½ |a|² t: constant velocity."""

    def __init__(self, a: torch.Tensor) -> None:
        super().__init__()
        self.a = a

    def forward(self, z, t):
        return z @ self.a - 0.5 * self.a.square().sum() * t


class Bowl(Potential):
    """u = ½ |z|² / (t + c): solves the equation without force."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def forward(self, z, t):
        return 0.5 * z.square().sum(1) / (t + self.c)


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_transformation_cannot_go_on_together_with_another() -> None:
    with pytest.raises(EocodecError, match="together needs two transformations"):
        PathTraining(names=("scale",), together=1.0)
    assert PathTraining(names=("scale",)).together == 0


def test_plane_moves_at_constant_velocity(z):
    a = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    potential, t = Plane(a), torch.full((50,), 1.7, dtype=torch.float64)
    assert residual(potential, z, t).abs().max() < 1e-12
    moved, log_det = step(potential, z, t)
    assert torch.allclose(moved - z, a.expand_as(z)) and log_det.abs().max() < 1e-12


def test_bowl_spreads_a_normal_density_exactly(z):
    c, time = 2.0, 1.0
    potential, t = Bowl(c), torch.full((50,), time, dtype=torch.float64)
    assert residual(potential, z, t).abs().max() < 1e-12
    moved, log_det = step(potential, z, t)
    factor = 1 + 1 / (time + c)
    assert torch.allclose(moved, factor * z)
    assert torch.allclose(log_det, torch.full_like(log_det, 4 * math.log(factor)))
    density = log_diffused(z, 0.0, 1.0) - log_det
    expected = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64), factor**2 * torch.eye(4, dtype=torch.float64)
    )
    assert (density - expected.log_prob(moved)).abs().max() < 1e-5


def test_diffused_prior_is_the_normal_of_its_variance(z):
    for time, diffusion in ((0.0, 1.0), (3.0, 0.5), (2.0, 0.0)):
        root = math.sqrt(1 + 2 * diffusion * time)
        expected = torch.distributions.Normal(0.0, root).log_prob(z).sum(1)
        assert torch.allclose(log_diffused(z, time, diffusion), expected)


def test_closed_forms_are_the_derivatives(z):
    torch.manual_seed(1)
    potential = NetPotential(4, 10).double()
    for parameter in potential.parameters():
        nn.init.normal_(parameter, std=0.7)
    t = torch.linspace(0, 5, 50, dtype=torch.float64)
    for name in ("gradient", "hessian", "time_derivative"):
        exact, own = getattr(Potential, name)(potential, z, t), getattr(potential, name)(z, t)
        assert torch.allclose(exact, own, atol=1e-9), name
        assert own.abs().max() > 1e-3


def test_force_enters_squared_and_the_kinetic_term_sums_over_dimensions(z):
    potential, force, t = Plane(torch.ones(4, dtype=torch.float64)), Bowl(1.0), torch.zeros(50, dtype=torch.float64)
    assert torch.allclose(residual(potential, z, t, force), force(z, t).square())

    class Steady(Plane):
        def forward(self, z, t):
            return z @ self.a

    assert torch.allclose(residual(Steady(potential.a), z, t), torch.full_like(t, 2.0))  # ½ · 4 · 1²


def test_constants_and_shifts_in_time_alone_move_nothing(z):
    class Shifted(Bowl):
        def forward(self, z, t):
            return super().forward(z, t) + 7.0 + t.sin()

    t = torch.ones(50, dtype=torch.float64)
    for a, b in zip(step(Bowl(1.0), z, t), step(Shifted(1.0), z, t), strict=True):
        assert torch.allclose(a, b)


def test_training_adds_what_is_written():
    torch.manual_seed(0)
    mover = FlowMover(3, 2, 8, hamilton_jacobi=2.0, density=3.0, at_rest=0.5, diffusion=1.0)
    z, density = torch.randn(6, 3), torch.randn(6)
    path, loss = mover.travel(1, z, density, 2)
    u, f = mover.potentials[1], mover.forces[1]
    zero = torch.zeros(6)
    expected = 0.5 * (u.gradient(z, zero).square().sum(1) + f(z, zero).square()).mean()
    for t in (1, 2):
        time = torch.full((6,), float(t))
        expected = expected + 2.0 * residual(u, z, time, f).square().mean()
        z, log_det = step(u, z, time)
        density = density - log_det
        expected = expected + 1.5 * (density - log_diffused(z, t, 1.0)).mean()
        assert torch.allclose(path[t - 1], z)
    assert torch.allclose(loss, expected, atol=1e-5)


class TestScenes:
    @pytest.fixture(scope="class")
    def grey(self) -> torch.Tensor:
        """A blob above the middle."""
        axis = torch.linspace(-1, 1, 32)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return torch.exp(-((y + 0.4) ** 2 + x**2) / 0.02)[None, None]

    def centre(self, picture: torch.Tensor) -> tuple[float, float]:
        light = picture.sum((0, 1))
        axis = torch.linspace(-1, 1, 32)
        return float((light.sum(0) * axis).sum() / light.sum()), float((light.sum(1) * axis).sum() / light.sum())

    def test_each_transformation_does_what_it_is_called(self, grey):
        one = torch.ones(1)
        assert self.centre(transformed(grey, {})) == pytest.approx((0.0, -0.4), abs=0.01)
        assert self.centre(transformed(grey, {"shift": one}))[0] == pytest.approx(TRANSFORMATIONS["shift"], abs=0.01)
        assert self.centre(transformed(grey, {"scale": one}))[1] == pytest.approx(-0.4 * 1.12, abs=0.01)
        x, y = self.centre(transformed(grey, {"rotation": 2 * one}))
        angle = 2 * TRANSFORMATIONS["rotation"]
        assert (abs(x), y) == pytest.approx((0.4 * math.sin(angle), -0.4 * math.cos(angle)), abs=0.01)
        coloured = transformed(grey, {"hue": one / 3 / TRANSFORMATIONS["hue"]})
        assert coloured[:, [0, 2]].abs().max() < 1e-5 and coloured[:, 1].max() > 0.9

    def test_shift_moves_a_turned_picture_sideways(self, grey):
        one = torch.ones(1)
        turned = self.centre(transformed(grey, {"rotation": one}))
        both = self.centre(transformed(grey, {"rotation": one, "shift": one}))
        assert both[0] - turned[0] == pytest.approx(TRANSFORMATIONS["shift"], abs=0.01)
        assert both[1] == pytest.approx(turned[1], abs=0.01)


def test_training_adds_what_every_step_of_a_path_costs():
    """The sum over steps, one after another: Hamilton–Jacobi residuals, density against the diffused prior, rest."""
    torch.manual_seed(1)
    mover = FlowMover(3, 2, 8, hamilton_jacobi=0.7, density=0.4, at_rest=0.3, diffusion=0.5).double()
    z, log_density = torch.randn(5, 3).double(), torch.randn(5).double()
    path, loss = mover.travel(1, z, log_density, 3)
    potential, force = mover.potentials[1], mover.forces[1]
    still = torch.zeros(5).double()
    expected = 0.3 * (potential.gradient(z, still).square().sum(1) + force(z, still).square()).mean()
    sizes = []
    for t, place in enumerate(path, 1):
        time = torch.full((5,), float(t)).double()
        r = residual(potential, z, time, force)
        sizes.append(float(r.detach().abs().mean()))
        z, log_det = step(potential, z, time)
        log_density = log_density - log_det
        expected = expected + 0.7 * r.square().mean()
        expected = expected + 0.4 / 3 * (log_density - log_diffused(z, t, 0.5)).mean()
        assert torch.allclose(place, z)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert mover.residual == pytest.approx(np.mean(sizes), rel=1e-9)


def test_roaming_paths_start_anywhere_and_go_along_one_transformation(monkeypatch):
    grey = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    asked = []

    def watched(x, steps):
        asked.append(steps)
        return transformed(x, steps)

    monkeypatch.setattr(learning, "transformed", watched)
    for roam in (0.0, 4.0):
        train_paths(grey, LinearMover, PathTraining(iterations=8, width=8, batch=50, roam=roam))
    plain, roaming = asked[:8], asked[8:]
    assert all(len(steps) == 1 for steps in plain)
    for steps in roaming:
        assert len(steps) == 3
        moving = 0
        for values in steps.values():
            frames = values.reshape(6, 50)
            assert 0 <= frames[0].min() < 0.5 and 3.5 < frames[0].max() <= 4
            moving += int(torch.allclose(frames - frames[0], torch.arange(6.0)[:, None].expand(6, 50), atol=1e-5))
        assert moving == 1
    model = train_paths(grey, LinearMover, PathTraining(iterations=1, width=8, roam=4.0, optimiser="soap"))
    assert len(model.mover.path(0, torch.zeros(1, 12), 3)) == 3
    with pytest.raises(ValueError, match="adam or soap"):
        PathTraining(optimiser="sgd")


def test_paths_whose_training_diverges_are_one_sentence():
    grey = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(EocodecError, match="training of the paths diverged"):
        train_paths(grey, FlowMover, PathTraining(iterations=40, width=8, batch=10, rate=1e9))
    start = np.full((4, 3), np.nan)
    with pytest.raises(EocodecError, match="training of the paths diverged"):
        learn_frozen(start, np.zeros((1, 2, 4, 3)), np.ones(3), LinearMover, 1)


def test_two_transformations_go_on_at_once_in_their_share_of_the_batches(monkeypatch):
    grey = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs, moving = [], []
    monkeypatch.setattr(learning, "transformed", lambda x, steps: moving.append(len(steps)) or transformed(x, steps))
    superposed = LinearMover.superposed
    watched = lambda mover, pair, z, steps: pairs.append(pair) or superposed(mover, pair, z, steps)  # noqa: E731
    monkeypatch.setattr(LinearMover, "superposed", watched)
    train_paths(grey, LinearMover, PathTraining(iterations=80, width=8, together=0.5))
    assert 20 < len(pairs) < 60 and moving.count(2) == len(pairs) and moving.count(1) == 80 - len(pairs)
    assert len(set(pairs)) == 6 and all(a != b for a, b in pairs)
    mover, start = LinearMover(4, 3), torch.randn(5, 4)
    both = superposed(mover, (2, 0), start, 3)
    for t, place in enumerate(both, 1):
        torch.testing.assert_close(place, start + t * (mover.directions[2] + mover.directions[0]))


@pytest.mark.slow
def test_direction_of_a_linear_world_is_found():
    """Latents that move by a: the gradient of a potential fitted to the moved latents points along a."""
    torch.manual_seed(0)
    a = torch.tensor([0.6, -0.3, 0.0])
    mover = FlowMover(3, 1, 16, density=0.0, at_rest=0.0)
    optimiser = torch.optim.Adam(mover.parameters(), 1e-2)
    for _ in range(150):
        z = torch.randn(64, 3)
        path, loss = mover.travel(0, z, torch.zeros(64), 2)
        loss = loss + sum((p - z - t * a).square().sum(1).mean() for t, p in enumerate(path, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = mover.displacement(0, torch.randn(200, 3), 1).detach()
    assert torch.nn.functional.cosine_similarity(found, a.expand_as(found)).mean() > 0.99


def test_composition_and_equivariance_of_exact_paths_are_exact():
    """A model whose latents are the steps themselves."""
    grey = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    class Exact(nn.Module):
        names = ("scale", "hue")
        mover = LinearMover(2, 2)

        def encode(self, x):
            return (self.z if len(x) == 3 else x), None

        def decode(self, z):
            return transformed(grey, {"scale": z[:, 0], "hue": z[:, 1]})

    model = Exact()
    model.z = torch.zeros(3, 2)
    model.mover.directions.data = torch.eye(2)
    for found in equivariance(model, grey, 3):
        assert found.error == pytest.approx(0, abs=1e-4) and found.relative < 1e-4 < found.standing_still
        assert found.residual is None
    found = composition(model, grey, ("scale", "hue"))
    assert found["switch"] == found["superpose"] == pytest.approx(0, abs=1e-4)
    assert found["standing still"] > 1


def test_movers_carry_the_latents_of_an_autoencoder_that_stays():
    """Encoded after every step from where a picture starts; exact latents give exact directions."""
    grey = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = ("scale", "hue")
    unit = torch.tensor([[0.5, 0.0, -0.2], [0.1, 0.3, 0.0]])
    seen = []

    class Exact(nn.Module):
        def encode(self, x):
            return seen[-1]["scale"][:, None] * unit[0] + seen[-1]["hue"][:, None] * unit[1], None

    def watched(x, steps):
        seen.append(steps)
        return x

    model = Exact()
    model.names = names
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "transformed", watched)
        start, ends = encoded_paths(model, grey, 3, roam=4.0, copies=3, seed=1)
    assert start.shape == (120, 3) and ends.shape == (2, 3, 120, 3)
    assert not start[:40].any() and np.abs(start[40:]).max() <= 4 * float(unit.sum(0).abs().max())
    assert len(np.unique(start[40:].round(6), axis=0)) == 80
    for k, t in ((0, 1), (0, 3), (1, 2)):
        np.testing.assert_allclose(ends[k, t - 1] - start, np.broadcast_to(t * unit[k], (120, 3)), atol=1e-5)
    mover = learn_frozen(start, ends, np.ones(3), LinearMover, 150, 5e-2)
    assert torch.allclose(mover.directions, unit, atol=0.01)


def test_autoencoder_without_steps_learns_alone():
    grey = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    training = PathTraining(("hue",), steps=0, width=16, iterations=40, batch=32, rate=1e-2, roam=3.0)
    model = train_paths(grey, LinearMover, training)
    untouched = train_paths(grey, LinearMover, replace(training, iterations=0)).mover
    assert torch.equal(model.mover.directions, untouched.directions)
    x = transformed(grey, {})
    before = train_paths(grey, LinearMover, replace(training, iterations=0))
    assert model.reconstruction(x, model.encode(x)[0]) < 0.9 * before.reconstruction(x, before.encode(x)[0])


@pytest.mark.slow
def test_flows_follow_transformations_and_compose():
    """On held-out digits; composition is of single transformations that were never seen together."""
    torch.set_num_threads(1)
    data = digits(seed=0)
    held_out = torch.from_numpy(data.held_out)
    training = PathTraining(iterations=400, batch=32, rate=1e-2, optimiser="soap")
    model = train_paths(torch.from_numpy(data.train), FlowMover, training)
    followed = {e.name: e for e in equivariance(model, held_out, training.steps)}
    limits = {"scale": 0.5, "rotation": 0.35, "hue": 0.25}
    assert all(followed[name].relative < limit for name, limit in limits.items())
    assert all(e.residual < 0.2 for e in followed.values())
    for pair in combinations(training.names, 2):
        found = composition(model, held_out, pair)
        assert found["switch"] < 0.65 * found["standing still"], pair


def test_frozen_latents_are_carried_as_the_operations_did():
    """Tint adds the same to every picture: a path that principal components can hold."""
    random = np.random.default_rng(0)
    x = (0.5 + 0.05 * random.standard_normal((60, 3, 8, 8)) + 0.1 * random.standard_normal((60, 3, 1, 1))).astype("f4")
    core = Core.top(PrincipalComponents.fit(x, 12), x, 12)
    start, targets = carried(core, x, ("tint", "light"), 2)
    assert targets.shape == (2, 2, 60, 12)
    np.testing.assert_allclose(targets[0, 1] - start, 2 * (targets[0, 0] - start), atol=1e-4)
    np.testing.assert_allclose(targets[0, 0] - start, (targets[0, 0] - start)[:1].repeat(60, 0), atol=1e-4)
    mover = learn_frozen(start, targets, core.whole.deviation, LinearMover, 400, 1e-1)
    tint, light = frozen_errors(core, mover, x, ("tint", "light"), 2)
    assert tint.error == pytest.approx(tint.coding, rel=0.05) and tint.relative < 0.9
    assert light.error < light.standing_still
    assert 0 <= tint.plausible <= 1


def test_operations_do_what_they_are_called():
    x = torch.full((1, 3, 16, 16), 0.4)
    x[:, :, 4:8, 4:8] = 0.8
    for name, operation in OPERATIONS.items():
        assert torch.allclose(operation(x, 0.0), x, atol=1e-5), name
    assert torch.allclose(OPERATIONS["light"](x, 2.0), x * 1.12**2)
    assert torch.allclose(OPERATIONS["shift"](x, 1.0)[..., 1:], x[..., :-1], atol=1e-5)
    lit = OPERATIONS["side light"](x, 1.0)
    assert lit[..., -1].mean() > x[..., -1].mean() and lit[..., 0].mean() < x[..., 0].mean()
