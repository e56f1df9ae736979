"""The objective against known truths: principal components, full Jacobians, curved manifolds with noise."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.objective import CURVE, DIM, GAUSSIAN, NOISE, SURFACE, VARIANCES, Source, linear_flow, train, trained  # noqa: E402
from eocodec.flow.dense import AffineCoupling, DenseCoupling, DenseFlow, Linear, Rotation, Scale, log_normal  # noqa: E402
from eocodec.flow.objective import (  # noqa: E402
    dense_log_column_norms,
    dense_total_correlation,
    draw_latents,
    explained_entropy,
    log_column_norms,
)
from eocodec.flow.photo import PhotoFlow  # noqa: E402

pytestmark = pytest.mark.slow


def gaussian_entropy(variance: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * variance)


def random_dense_flow(dim: int, scale: float = 0.4) -> DenseFlow:
    torch.manual_seed(0)
    flow = DenseFlow(
        [
            Rotation(dim, dim),
            AffineCoupling(dim, dim // 2, 16),
            Linear(dim),
            DenseCoupling(dim, dim // 3, 16, flipped=True),
            Scale(dim),
        ]
    ).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(torch.randn_like(p) * scale)
    return flow


def full_jacobian(flow: DenseFlow, z: "torch.Tensor") -> "torch.Tensor":
    """∂g/∂z at every sample, `(B, D, D)`."""

    def one(v: "torch.Tensor") -> "torch.Tensor":
        return flow.inverse(v[None])[0]

    return torch.stack([torch.func.jacfwd(one)(v) for v in z]).detach()


# The building blocks


def test_rotation_is_orthogonal_whatever_its_parameters() -> None:
    torch.manual_seed(0)
    for rank in (1, 4, 7):
        rotation = Rotation(7, rank).double()
        eye = torch.eye(7, dtype=torch.float64)
        assert torch.allclose(rotation(eye), eye, atol=1e-12)  # starts at the identity
        with torch.no_grad():
            rotation.vectors.copy_(torch.randn(7, rank) * 10)
        q = rotation(eye)
        assert torch.allclose(q @ q.T, eye, atol=1e-12)
        assert not torch.allclose(q, eye, atol=0.1)
        assert torch.allclose(rotation.inverse(q), eye, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_rotation_starts_at_a_given_basis(rank: int) -> None:
    torch.manual_seed(0)
    rows = torch.linalg.qr(torch.randn(20, rank, dtype=torch.float64))[0].T
    rotation = Rotation.from_basis(rows)
    eye = torch.eye(20, dtype=torch.float64)
    assert torch.allclose(rotation(eye)[:, :rank], rows.T, rtol=0, atol=1e-12)
    # The other outputs are the input coordinates but for a part of rank K; for one row, the least that is possible.
    change = (rotation(eye) - eye)[:, rank:].detach()
    if rank < 20:
        assert int(torch.linalg.matrix_rank(change, atol=1e-9)) == min(rank, 20 - rank)
    if rank == 1:
        assert change.square().sum().item() == pytest.approx(2 * (1 - rows[0, 0].abs().item()))
    rotation(torch.randn(6, 20, dtype=torch.float64))[:, 0].sum().backward()
    assert rotation.vectors.grad is not None and rotation.vectors.grad.abs().max() > 1e-3


def test_rotation_onto_the_first_axes_changes_nothing() -> None:
    eye = torch.eye(9, dtype=torch.float64)
    assert torch.allclose(Rotation.from_basis(eye[:4])(eye), eye, atol=1e-12)
    flipped = Rotation.from_basis(-eye[:4])(eye)
    assert torch.allclose(flipped, torch.diag(torch.where(torch.arange(9) < 4, -1.0, 1.0).double()), atol=1e-12)


def test_rotation_rejects_a_crooked_basis() -> None:
    with pytest.raises(ValueError, match="orthonormal"):
        Rotation.from_basis(torch.ones(2, 5))


def test_dense_flow_inverts_and_knows_its_determinant() -> None:
    flow = random_dense_flow(6)
    x = torch.randn(5, 6, dtype=torch.float64)
    z, log_det = flow(x)
    assert torch.allclose(flow.inverse(z), x, atol=1e-10)
    expected = -torch.linalg.slogdet(full_jacobian(flow, z))[1]
    assert torch.allclose(log_det, expected, atol=1e-9)
    assert log_det.std() > 0.1  # the flow is not linear


# The estimators


def test_one_hot_products_give_the_columns_of_the_full_jacobian() -> None:
    flow = random_dense_flow(6)
    z = torch.randn(5, 6, dtype=torch.float64)
    exact = full_jacobian(flow, z).square().sum(1).log() / 2
    got = torch.stack([dense_log_column_norms(flow.inverse, z, torch.full((5,), i)) for i in range(6)], 1)
    assert torch.allclose(got, exact, atol=1e-9)
    # Averaging the one-hot estimates over all i is the truth itself.
    assert torch.allclose((6 * got).mean(1), exact.sum(1), atol=1e-9)
    index = torch.tensor([3, 0, 5, 5, 1])
    mixed = dense_log_column_norms(flow.inverse, z, index)
    assert torch.allclose(mixed, exact[torch.arange(5), index], atol=1e-9)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_dense_total_correlation_is_unbiased(stratified: bool, weighted: bool) -> None:
    flow = random_dense_flow(6)
    z, log_det = flow(torch.randn(10, 6, dtype=torch.float64))
    z, log_det = z.detach(), log_det.detach()
    norms = full_jacobian(flow, z).square().sum(1).log() / 2
    exact = (norms.sum(1) + log_det).mean().item()
    assert exact > 0.1
    weights = torch.tensor([1.0, 5.0, 0.5, 2.0, 1.0, 3.0]) if weighted else None
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        draws = [
            dense_total_correlation(flow.inverse, z, generator, log_det, weights, stratified).mean().item()
            for _ in range(100)
        ]
    error = np.std(draws) / math.sqrt(len(draws))
    print("mean", np.mean(draws), "truth", exact, "standard error", error)
    assert error < 0.25 * exact  # or the next line would hold for anything
    assert abs(np.mean(draws) - exact) < 3.5 * error


def test_expected_estimate_over_all_draws_is_the_truth() -> None:
    """Σ_i q_i · (the estimate when i is drawn) is Σ log ‖J_i‖ exactly, for uniform and other q."""
    flow = random_dense_flow(6)
    z = torch.randn(1, 6, dtype=torch.float64)
    exact = (full_jacobian(flow, z).square().sum(1).log() / 2).sum().item()
    for weights in (torch.ones(6), torch.tensor([1.0, 5.0, 0.5, 2.0, 1.0, 3.0])):
        probability = weights / weights.sum()
        estimates: dict[int, float] = {}
        for seed in range(200):
            index = int(draw_latents(1, probability, torch.Generator().manual_seed(seed)))
            if index not in estimates:
                generator = torch.Generator().manual_seed(seed)
                estimates[index] = dense_total_correlation(flow.inverse, z, generator, weights=weights).item()
        assert len(estimates) == 6
        assert sum(probability[i].item() * e for i, e in estimates.items()) == pytest.approx(exact, abs=1e-6)


def test_stratified_draws_follow_their_distribution_evenly() -> None:
    probability = torch.tensor([0.5, 0.25, 0.15, 0.1])
    generator = torch.Generator().manual_seed(0)
    counts = torch.stack([draw_latents(16, probability, generator).bincount(minlength=4) for _ in range(400)]).double()
    assert ((counts - 16 * probability).abs() < 1).all()
    first = torch.stack([draw_latents(16, probability, generator)[0] for _ in range(4000)]).bincount(minlength=4) / 4000
    assert torch.allclose(first, probability, atol=0.03)  # 3.8 standard errors
    uniform = draw_latents(12, torch.full((4,), 0.25), generator)
    assert uniform.bincount(minlength=4).tolist() == [3, 3, 3, 3]


def test_zero_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        dense_total_correlation(lambda v: v, torch.randn(4, 2), None, weights=torch.tensor([1.0, 0.0]))


def test_explained_entropy_sums_to_likelihood_and_total_correlation() -> None:
    flow = random_dense_flow(6)
    z, log_det = flow(torch.randn(40, 6, dtype=torch.float64))
    z, log_det = z.detach(), log_det.detach()
    jacobian = full_jacobian(flow, z)
    norms = jacobian.square().sum(1).log() / 2
    got = explained_entropy(flow.inverse, z, log_normal(z))
    assert torch.allclose(got, (norms - log_normal(z)).mean(0), atol=1e-9)
    correlation = (norms.sum(1) - torch.linalg.slogdet(jacobian)[1]).mean()
    assert torch.allclose(got.sum() - flow.nll(z, log_det).mean(), correlation, atol=1e-9)
    # Two products instead of six look at every column on a third of the samples.
    few = explained_entropy(flow.inverse, z, log_normal(z), probes=2)
    assert (few - got).abs().max() < 4 * (norms.std(0) / math.sqrt(40 / 3)).max()
    assert (few - got).abs().max() > 0
    with pytest.raises(ValueError, match="columns"):
        explained_entropy(flow.inverse, z[:2], log_normal(z[:2]), probes=2)


def test_impulses_on_a_lattice_divide_the_variance_by_their_number() -> None:
    """Photo flow: n impulses in one forward-mode product give 1/n of the variance, at the same cost."""
    flow = PhotoFlow(2, 8, 1)
    torch.manual_seed(0)
    impulses, band, channel = (1, 4, 16, 64), 2, 4
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(torch.randn_like(p) * 0.15)
        draws = []
        for _ in range(48):
            h = flow(torch.rand(1, 3, 96, 96))
            spacings = [96 // math.isqrt(n) for n in impulses]
            draws.append([log_column_norms(flow.inverse, h, band, channel, s).mean().item() for s in spacings])
    variance = np.var(draws, axis=0, ddof=1)
    slope = np.polyfit(np.log(impulses), np.log(variance), 1)[0]
    print("variances", variance, "slope", slope, "means", np.mean(draws, axis=0))
    assert slope == pytest.approx(-1, abs=0.2)  # 3 standard errors of a variance of 48 draws


@pytest.mark.parametrize("band,channel", [(0, 0), (1, 4), (2, 4)])
def test_leakage_between_impulses_is_small(band: int, channel: int) -> None:
    """Photo flow: a lattice's log-norms against the same columns alone; the bias is below 1 % of the norm."""
    flow = PhotoFlow(2, 8, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(torch.randn_like(p) * 0.15)
        h = flow(torch.rand(1, 3, 96, 96))

        def alone(y: int, x: int) -> float:
            tangent = [torch.zeros_like(b) for b in h]
            tangent[band][0, channel, y, x] = 1.0
            _, column = torch.func.jvp(lambda *v: flow.inverse(list(v)), tuple(h), tuple(tangent))
            return 0.5 * math.log(column.square().sum().item())

        for spacing, allowed in ((48, 0.001), (24, 0.01)):
            stride = spacing * h[band].shape[-1] // 96
            got = log_column_norms(flow.inverse, h, band, channel, spacing)[0]
            truth = [
                [alone(stride // 2 + k * stride, stride // 2 + j * stride) for j in range(len(got))]
                for k in range(len(got))
            ]
            bias = (got - torch.tensor(truth)).mean().item()
            print("band", band, "spacing", spacing, "bias", bias)
            assert abs(bias) < allowed


# What training finds


def test_linear_flow_finds_the_principal_components() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, DIM, generator=generator, dtype=torch.float64)
    x -= x.mean(0)
    factor = torch.linalg.cholesky(x.T @ x / len(x))
    x = torch.linalg.solve_triangular(factor, x.T, upper=False).T  # its covariance is exactly the identity
    axes = GAUSSIAN.basis().double()
    x = x * VARIANCES.double().sqrt() @ axes.T  # and now exactly the known one

    flow = linear_flow().double()
    train(flow, lambda: x, 1.0, generator, steps=300, rate=3e-2)
    with torch.no_grad():
        z, log_det = flow(x)
        nll = flow.nll(z, log_det).mean().item()
    entropies = explained_entropy(flow.inverse, z, log_normal(z))
    order = entropies.argsort(descending=True)
    truth = torch.tensor([gaussian_entropy(v) for v in VARIANCES.tolist()], dtype=torch.float64)
    print("largest error", (entropies[order] - truth).abs().max().item(), "nll error", nll - truth.sum().item())
    print("total correlation", entropies.sum().item() - nll)
    assert (entropies[order] - truth).abs().max() < 0.02
    assert nll == pytest.approx(truth.sum().item(), abs=0.02)
    assert abs(entropies.sum().item() - nll) < 0.01
    # The latents in this order are the principal components in theirs.
    columns = full_jacobian(flow, z[:1])[0][:, order]
    cosines = ((columns / columns.norm(dim=0)).T @ axes).abs().diagonal()
    assert cosines.min() > 0.999


def test_likelihood_alone_does_not_find_the_principal_components() -> None:
    flow = trained(GAUSSIAN, 0.0, 0)
    with torch.no_grad():
        z, log_det = flow(GAUSSIAN.sample(4000, torch.Generator().manual_seed(5))[1])
        nll = flow.nll(z, log_det).mean().item()
        correlation = explained_entropy(flow.inverse, z, log_normal(z)).sum().item() - nll
    truth = sum(gaussian_entropy(v) for v in VARIANCES.tolist())
    print("nll error", nll - truth, "total correlation", correlation)
    assert nll == pytest.approx(truth, abs=0.1)
    assert correlation > 1


@pytest.mark.parametrize("source", [CURVE, SURFACE], ids=lambda s: s.name)
def test_flow_finds_a_curved_manifold_and_its_noise(source: Source) -> None:
    flow = trained(source, 1.0, 0, steps=360, splits=(1, 2))
    clean, x = source.sample(4000, torch.Generator().manual_seed(5))
    with torch.no_grad():
        z, log_det = flow(x)
        nll = flow.nll(z, log_det).mean().item()
    entropies = explained_entropy(flow.inverse, z, log_normal(z))
    order = entropies.argsort(descending=True)
    above = entropies[order] - gaussian_entropy(NOISE**2)
    core, plateau = above[: source.core], above[source.core :]
    kept = torch.zeros(DIM)
    kept[order[: source.core]] = 1.0
    with torch.no_grad():
        projected = flow.inverse(z * kept)
    error = (projected - clean).square().sum(1).mean().sqrt().item()
    before = (x - clean).square().sum(1).mean().sqrt().item()
    ideal = NOISE * math.sqrt(source.core)  # noise along the manifold cannot be told from signal
    print("core", core, "plateau", plateau, "total correlation", entropies.sum().item() - nll)
    print("error", error, "before", before, "ideal", ideal)
    assert core.min() > 1.5  # nats above the plateau: 4.5 times the noise
    assert plateau.abs().max() < 0.05
    assert entropies.sum().item() - nll < 0.1
    assert error < 0.6 * before
    assert error < 1.2 * ideal
