"""Sets and subjects of the lab: ablations are exact, estimators read what is known, decoders differentiate."""

import dataclasses
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eocodec.errors import EocodecError, EocodecWarning
from eocodec.flow.dense import log_normal
from eocodec.flow.objective import explained_entropy
from eocodec.lab.data.dataset import Dataset
from eocodec.lab.data.factor_analysis import DESIGNS, factor_analysis
from eocodec.lab.data.manifolds import ANGLES, RADII, torus, torus_spectrum, two_moons
from eocodec.lab.data.pictures import digits, face_statistics, faces, read_pictures
from eocodec.lab.data.sprites import render, sprites
from eocodec.lab.measures.manifold import gaps, manifold, pairwise_information, small_noise_gaps
from eocodec.lab.subjects.flow import FlowSubject, FlowTraining, components_flow, linear_flow, random_flow, train_flow
from eocodec.lab.subjects.linear import PrincipalComponents
from eocodec.lab.subjects.objective import (
    METHODS,
    Discriminator,
    Weights,
    covariance_penalty,
    equicorrelation,
    kl_divergence,
    stratified_total_correlation,
)
from eocodec.lab.subjects.subject import Core
from eocodec.lab.subjects.vae import Autoencoder, Training, train_vae

SHORT = Training(iterations=4, batch=16)


@pytest.fixture(scope="module")
def fa() -> Dataset:
    return factor_analysis("fa15", 300)


class TestSets:
    @pytest.mark.parametrize("name", DESIGNS)
    def test_every_feature_follows_its_own_factor(self, name):
        data = factor_analysis(name, 2000)
        correlation = np.corrcoef(data.held_out.T, data.factors.values.T)[: data.shape[0], data.shape[0] :]
        owner = np.repeat(np.arange(len(DESIGNS[name].blocks)), DESIGNS[name].blocks)
        assert np.array_equal(np.abs(correlation).argmax(1), owner)
        np.testing.assert_allclose(data.train.std(0), 1, atol=1e-4)
        assert not np.array_equal(data.train, data.held_out)

    def test_torus_has_the_entropies_of_its_angles_and_radii(self):
        """The true decoder's Jacobian at samples, by hand: columns s·r and t, all orthogonal."""
        random = np.random.default_rng(0)
        theta, r = ANGLES * random.standard_normal((4000, 10)), 1 + RADII * random.standard_normal((4000, 10))
        j = np.zeros((4000, 20, 20))
        for k in range(10):
            j[:, 2 * k, k], j[:, 2 * k + 1, k] = -r[:, k] * np.sin(theta[:, k]), r[:, k] * np.cos(theta[:, k])
            j[:, 2 * k, 10 + k], j[:, 2 * k + 1, 10 + k] = np.cos(theta[:, k]), np.sin(theta[:, k])
        j *= np.concatenate([ANGLES, RADII])
        gram = np.swapaxes(j, 1, 2) @ j
        np.testing.assert_allclose(np.sort(manifold(gram).spectrum)[::-1], torus_spectrum(), atol=2e-3)
        assert manifold(gram).total_correlation == pytest.approx(0, abs=1e-9)
        assert np.abs(pairwise_information(gram)).max() < 1e-12

    def test_torus_points_are_on_circles_of_their_deviations(self):
        x = torus(4000).train
        values = np.linalg.eigvalsh(np.cov(x.T))
        assert math.sqrt(values[-1]) == pytest.approx(ANGLES.max(), rel=0.12)
        assert values[0] > 0

    def test_sprites_follow_their_factors(self):
        zero = np.zeros(2)
        a = render(np.array([0, 0]), zero + 0.2, zero, np.array([0.3, 0.7]), zero + 0.5)[:, 0]
        columns = (a.sum(1) * np.arange(32)).sum(1) / a.sum((1, 2))
        assert columns[1] - columns[0] == pytest.approx(0.4 * 32, abs=0.34)  # three samples a pixel
        b = render(np.array([1, 1]), np.array([0.1, 0.2]), zero, zero + 0.5, zero + 0.5)
        assert b[1].sum() == pytest.approx(4 * b[0].sum(), rel=0.05)
        # a square is the same after a quarter turn, an ellipse is not
        c = render(np.array([0, 0, 1, 1]), np.full(4, 0.2), np.array([0, math.pi / 2] * 2), *2 * [np.full(4, 0.5)])
        assert np.abs(c[0] - c[1]).max() < 1e-6 and np.abs(c[2] - c[3]).max() > 0.5
        red, green = render(np.array([2, 2]), zero + 0.2, zero, *2 * [zero + 0.5], np.array([0, 1 / 3]))
        assert max(red[1:].max(), green[[0, 2]].max()) < 1e-9 and red[0].max() == 1

    @pytest.mark.slow
    def test_sprites_and_digits_and_moons_have_what_they_promise(self):
        data = sprites(30, hue=True)
        assert data.train.shape == (30, 3, 32, 32) and data.factors.names[-1] == "hue"
        assert data.features(data.held_out).shape == (10, 192) == (10, len(data.feature_names))
        written = digits()
        assert written.train.shape[1:] == (1, 16, 16) and len(written.train) + len(written.held_out) == 1797
        assert set(np.unique(written.factors.values)) == set(range(10))
        assert abs(two_moons(4000).train[:, 0].mean() - 0.5) < 0.05

    def test_face_statistics_are_what_they_are_called(self):
        x = np.full((3, 3, 64, 64), 0.5, np.float32)
        x[1, :, :, :32] += 0.2
        x[2, 0] += 0.1
        found = face_statistics(x)
        assert found[0, 2] == pytest.approx(0) and found[1, 2] == pytest.approx(0.2, abs=1e-6)
        assert found[2, 4] == pytest.approx(0.1, abs=1e-6) and found[2, 6] == pytest.approx(0.1, abs=1e-6)

    def test_unreadable_faces_are_an_error(self, tmp_path: Path):
        with pytest.raises(EocodecError, match="holds no pictures"):
            read_pictures(tmp_path)
        Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
        Image.new("RGB", (32, 64)).save(tmp_path / "b.png")
        with pytest.raises(EocodecError, match=r"of one size: b\.png has 32x64 pixels, a\.png 64x64"):
            read_pictures(tmp_path)
        (tmp_path / "b.png").write_bytes(b"no picture")
        with pytest.raises(EocodecError, match=r"^b\.png in .*: not a picture"):
            read_pictures(tmp_path)
        with tarfile.open(tmp_path / "faces.tar", "w") as tar:
            tar.add(tmp_path / "b.png", "one/b.png")
        with pytest.raises(EocodecError, match=r"^one/b\.png in .*faces\.tar: not a picture"):
            read_pictures(tmp_path / "faces.tar")
        with pytest.raises(EocodecError, match="not a tar or folder"):
            faces(tmp_path / "none.tar", tmp_path)


def by_hand(x: np.ndarray, objective, steps: int = SHORT.iterations) -> dict[str, torch.Tensor]:
    """Weights after a few iterations of a VAE written here; objective `(k, R, kl, mean, log var, z) -> loss`."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = Autoencoder((15,), 6)
    random = torch.Generator().manual_seed(5)
    optimiser = torch.optim.Adam(net.parameters(), SHORT.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    data = torch.from_numpy(x)
    for k in range(steps):
        batch = data[torch.randint(len(data), (SHORT.batch,), generator=random)]
        mean, log_variance = net.encoder(batch).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=random)
        reconstruction = ((net.decoder(z) - batch).square().sum(1) / 0.2).mean()
        kl = (0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)).mean()
        loss = objective(k, reconstruction, kl, mean, log_variance, z)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return net.state_dict()


def squares(covariance: torch.Tensor, off: float, diagonal: float) -> torch.Tensor:
    d = covariance.diagonal()
    return off * (covariance.square().sum() - d.square().sum()) + diagonal * (d - 1).square().sum()


def of_means(mean: torch.Tensor) -> torch.Tensor:
    centred = mean - mean.mean(0)
    return centred.T @ centred / len(mean)


ABLATIONS = {
    "VAE": lambda k, r, kl, m, v, z: r + kl,
    "β-VAE": lambda k, r, kl, m, v, z: r + 4 * kl,
    "annealed VAE": lambda k, r, kl, m, v, z: r + 10 * (kl - 8 * k / 1000).abs(),
    "FactorVAE": lambda k, r, kl, m, v, z: r + kl + 6 * stratified_total_correlation(z, m, v, 300),
    "β-TCVAE": lambda k, r, kl, m, v, z: r + kl + 5 * stratified_total_correlation(z, m, v, 300),
    "DIP-VAE I": lambda k, r, kl, m, v, z: r + kl + squares(of_means(m), 5, 50),
    "DIP-VAE II": lambda k, r, kl, m, v, z: r + kl + squares(of_means(m) + torch.diag(v.exp().mean(0)), 5, 5),
    "bfVAE": lambda k, r, kl, m, v, z: (
        r
        + (1 + k / 750) * kl
        + 6 * stratified_total_correlation(z, m, v, 300)
        + squares(of_means(m), k / 750 * 5, k / 750 * 5)
    ),
}


class TestObjective:
    @pytest.mark.parametrize("name", ABLATIONS)
    def test_every_method_is_its_own_objective_bit_for_bit(self, fa, name):
        trained = train_vae(fa.train, 6, METHODS[name], SHORT, seed=5).net.state_dict()
        expected = by_hand(fa.train, ABLATIONS[name])
        assert all(torch.equal(trained[key], expected[key]) for key in expected)

    def test_bfvae_without_its_terms_is_each_ablation(self, fa):
        bfvae = METHODS["bfVAE"]
        nothing = {"total_correlation": 0.0, "off_diagonal": 0.0, "diagonal": 0.0}
        for name, change in (
            ("VAE", {"kl": 1.0, **nothing}),
            ("β-VAE", {"kl": 4.0, "warm_up": 0, **nothing}),
            ("FactorVAE", {"kl": 1.0, "off_diagonal": 0.0, "diagonal": 0.0}),
            ("VAE", {"kl": 1.0, **nothing, "estimator": "density-ratio"}),
        ):
            a = train_vae(fa.train, 6, dataclasses.replace(bfvae, **change), SHORT, seed=5).net.state_dict()
            b = by_hand(fa.train, ABLATIONS[name])
            assert all(torch.equal(a[key], b[key]) for key in b), change

    def test_warm_up_ends_at_the_weights_and_leaves_total_correlation_alone(self):
        full = METHODS["bfVAE"]
        assert full.warmed(0) == dataclasses.replace(full, kl=1.0, off_diagonal=0.0, diagonal=0.0)
        half = full.warmed(full.warm_up // 2)
        assert (half.kl, half.off_diagonal, half.diagonal) == (1.5, 2.5, 2.5)
        assert half.total_correlation == full.total_correlation
        assert full.warmed(full.warm_up) is full and METHODS["VAE"].warmed(0) is METHODS["VAE"]

    def test_every_term_changes_what_is_learnt(self, fa):
        plain = train_vae(fa.train, 6, Weights(), SHORT, seed=5).net.state_dict()
        for change in (
            {"kl": 1.1}, {"capacity": 5.0, "ramp": 2}, {"total_correlation": 1.0}, {"off_diagonal": 1.0},
            {"diagonal": 1.0}, {"diagonal": 1.0, "warm_up": 100}, {"correlation": 0.3},
            {"total_correlation": 1.0, "estimator": "density-ratio"},
        ):  # fmt: skip
            other = train_vae(fa.train, 6, Weights(**change), SHORT, seed=5).net.state_dict()
            assert not all(torch.equal(plain[key], other[key]) for key in plain), change

    def test_training_leaves_the_global_generator_alone(self, fa):
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        train_vae(fa.train, 6, METHODS["FactorVAE density ratio"], SHORT)
        assert torch.equal(torch.rand(3), expected)

    @pytest.mark.parametrize(
        ("latents", "variance", "batch", "low", "high"), [(8, 0.1, 128, 1.0, 1.7), (10, 0.5, 256, -0.4, 0.2)]
    )
    def test_stratified_estimate_of_independent_latents(self, latents, variance, batch, low, high):
        """Weights on the diagonal; 1/N in the first column instead reads 4.2 and 0.24, without weights 62 and 75."""
        random = torch.Generator().manual_seed(0)
        found = []
        for _ in range(20):
            mean = math.sqrt(1 - variance) * torch.randn(batch, latents, generator=random)
            z = mean + math.sqrt(variance) * torch.randn(batch, latents, generator=random)
            log_variance = torch.full_like(mean, math.log(variance))
            found.append(float(stratified_total_correlation(z, mean, log_variance, 4000)))
        assert low < np.mean(found) < high

    def test_stratified_estimate_is_its_formula(self):
        random = torch.Generator().manual_seed(1)
        mean, log_variance, z = (torch.randn(5, 3, generator=random) for _ in range(3))
        r = equicorrelation(3, 0.4)
        weight = np.full((5, 5), 99 / (100 * 4))
        np.fill_diagonal(weight, 1 / 100)
        total = 0.0
        for a in range(5):
            joint, single = 0.0, np.zeros(3)
            for b in range(5):
                d = torch.diag(torch.exp(0.5 * log_variance[b]))
                q = torch.distributions.MultivariateNormal(mean[b], d @ r @ d)
                joint += weight[a, b] * float(q.log_prob(z[a]).exp())
                each = torch.distributions.Normal(mean[b], torch.exp(0.5 * log_variance[b]))
                single += weight[a, b] * each.log_prob(z[a]).exp().numpy()
            total += math.log(joint) - np.log(single).sum()
        assert float(stratified_total_correlation(z, mean, log_variance, 100, r)) == pytest.approx(total / 5, abs=1e-5)

    @pytest.mark.parametrize(("rho", "nats"), [(0.5, 1.106), (0.9, 4.904)])
    def test_correlated_noise_adds_its_total_correlation_to_the_kl(self, rho, nats):
        r = equicorrelation(6, rho)
        mean, log_variance = torch.randn(4, 6), torch.randn(4, 6)
        more = kl_divergence(mean, log_variance, r) - kl_divergence(mean, log_variance)
        assert more.numpy() == pytest.approx(-0.5 * float(torch.logdet(r)), abs=1e-5)
        assert float(more[0]) == pytest.approx(nats, abs=1e-3)

    def test_kl_is_that_of_torch(self):
        mean, log_variance, r = torch.randn(1, 3), torch.randn(1, 3), equicorrelation(3, 0.6)
        d = torch.diag(torch.exp(0.5 * log_variance[0]))
        q = torch.distributions.MultivariateNormal(mean[0], d @ r @ d)
        p = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
        expected = float(torch.distributions.kl_divergence(q, p))
        assert float(kl_divergence(mean, log_variance, r)) == pytest.approx(expected, abs=1e-4)

    def test_density_ratio_finds_dependence(self):
        torch.manual_seed(0)
        rho = 0.9
        judge = Discriminator(2, 32)
        optimiser = torch.optim.Adam(judge.parameters(), 2e-3)

        def draw(n: int) -> torch.Tensor:
            a = torch.randn(n, 2)
            return torch.stack([a[:, 0], rho * a[:, 0] + math.sqrt(1 - rho**2) * a[:, 1]], 1)

        for _ in range(300):
            optimiser.zero_grad()
            judge.loss(draw(256), draw(256)).backward()
            optimiser.step()
        with torch.no_grad():
            assert float(judge.total_correlation(draw(4000))) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.2)

    def test_covariance_penalty_vanishes_where_it_should(self):
        basis = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
        dip = Weights(off_diagonal=1.0, diagonal=1.0)
        assert float(covariance_penalty(basis, torch.zeros(4, 2), dip)) == 0
        samples = dataclasses.replace(dip, of_samples=True)
        assert float(covariance_penalty(basis, torch.zeros(4, 2), samples)) == 2.0

    def test_unknown_estimators_and_correlations_are_refused(self):
        with pytest.raises(ValueError, match="estimator"):
            Weights(estimator="guess")
        with pytest.raises(ValueError, match="correlation"):
            Weights(correlation=1.0)


class TestSubjects:
    def test_principal_components_have_no_gap_and_share_nothing(self, fa):
        subject = PrincipalComponents.fit(fa.train, 6)
        z = subject.encode(fa.held_out).mean
        gram = subject.grams(z[:5])
        assert np.abs(gaps(gram, fa.noise).gap).max() < 1e-6
        assert np.abs(pairwise_information(gram)).max() < 1e-6
        values = np.linalg.eigvalsh(np.cov(fa.train.T, bias=True))[::-1]
        np.testing.assert_allclose(subject.deviation**2, values[:6], rtol=1e-5)

    def test_principal_components_of_few_pictures_reproduce_them(self):
        x = np.random.default_rng(0).random((8, 3, 16, 16)).astype(np.float32)
        subject = PrincipalComponents.fit(x, 7)
        np.testing.assert_allclose(subject.decode(subject.encode(x).mean), x, atol=1e-5)

    @pytest.mark.parametrize("make", ["vae", "pictures", "flow", "pca"])
    def test_jacobians_are_those_of_differences(self, fa, make):
        torch.manual_seed(0)
        x = fa.train[:20]
        if make == "vae":
            subject = train_vae(fa.train, 4, Weights(), SHORT)
        elif make == "pictures":
            x = sprites(20).train
            subject = train_vae(x, 4, Weights(), dataclasses.replace(SHORT, iterations=2))
        elif make == "flow":
            subject = FlowSubject("flow", random_flow(15), (15,), 0.1, dtype=torch.float64)
        else:
            subject = PrincipalComponents.fit(fa.train, 4)
        core = Core.top(subject, x, 3)
        z = core.encode(x).mean[:2]
        j = core.jacobians(z)
        step = 1e-2
        for k in range(3):
            away = np.zeros(3)
            away[k] = step
            difference = (core.decode(z + away).astype(float) - core.decode(z - away)).reshape(2, -1) / (2 * step)
            np.testing.assert_allclose(j[:, :, k], difference, atol=3e-3 * max(1, np.abs(j).max()))

    def test_flow_from_components_starts_as_the_linear_gaussian_model(self, fa):
        x = torch.from_numpy(fa.train).double()
        expected = linear_flow(x)
        torch.manual_seed(0)
        start = components_flow(x, 2, 8).double()
        np.testing.assert_allclose(start(x)[0].detach(), expected(x)[0].detach(), atol=1e-5)
        np.testing.assert_allclose(start(x)[1].detach(), expected(x)[1].detach(), atol=1e-5)
        assert [type(layer) for layer in start.layers] == [type(layer) for layer in random_flow(15, 2, 8).layers]

    @pytest.mark.slow
    @pytest.mark.parametrize("optimiser", ["adam", "soap"])
    def test_flow_from_components_learns_what_is_not_gaussian(self, fa, optimiser):
        x = torch.from_numpy(fa.train)
        linear = linear_flow(x)
        training = FlowTraining(60, 128, 5e-3, 5e-3, 2, 16, start="components", optimiser=optimiser)
        before, after = (f.nll(*f(x)).mean().item() for f in (linear, train_flow(x, 0.0, training)))
        assert after < before - 0.1

    def test_gaps_of_a_dense_flow_sum_to_its_total_correlations(self):
        """One JVP and one VJP for each latent, against determinants."""
        torch.manual_seed(0)
        flow = random_flow(7)
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        subject = FlowSubject("flow", flow, (7,), 0.1, dtype=torch.float64)
        x = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32)
        z = subject.encode(x).mean
        j = subject.jacobians(z)
        f = np.stack([subject.encoder_rows(x, k) for k in range(7)], 1)
        np.testing.assert_allclose(f @ j, np.broadcast_to(np.eye(7), (30, 7, 7)), atol=1e-4)
        columns, rows = np.linalg.norm(j, axis=1), np.linalg.norm(f, axis=2)
        c = small_noise_gaps(columns, rows)
        dtc = (np.log(columns).sum(1) - np.linalg.slogdet(j)[1]).mean()
        tc = (np.log(rows).sum(1) - np.linalg.slogdet(f)[1]).mean()
        assert dtc > 0.1 and tc > 0.1
        assert c.sum() == pytest.approx(tc + dtc, abs=1e-4)
        assert manifold(subject.grams(z)).total_correlation == pytest.approx(dtc, rel=1e-6)
        # explained entropy above the noise floor is the conditional mutual information
        sigma = 1e-6
        h = explained_entropy(flow.inverse, torch.from_numpy(z), log_normal(torch.from_numpy(z))).numpy()
        prior = -log_normal(torch.from_numpy(z)).mean(0).numpy() - 0.5 * math.log(2 * math.pi * math.e)
        floor = 0.5 * math.log(2 * math.pi * math.e * sigma**2)
        np.testing.assert_allclose(h - prior - floor, gaps(subject.grams(z), sigma).given_others, atol=1e-6)

    def test_core_keeps_the_most_important_latents_in_order(self, fa):
        flow = train_flow(torch.from_numpy(fa.train), 1.0, FlowTraining(5, 32))
        subject = FlowSubject("flow", flow, (15,), 0.1)
        core = Core.top(subject, fa.held_out, 5)
        entropies = subject.importance(fa.held_out)
        assert (np.diff(entropies[core.order]) <= 0).all() and entropies[core.order].min() >= np.sort(entropies)[-5]
        z = core.encode(fa.held_out[:3]).mean
        np.testing.assert_allclose(z, subject.encode(fa.held_out[:3]).mean[:, core.order])
        full = np.zeros((3, 15))
        full[:, core.order] = z
        np.testing.assert_allclose(core.decode(z), subject.decode(full), atol=1e-6)

    def test_posterior_of_correlated_noise_has_its_correlation(self, fa):
        subject = train_vae(fa.train, 3, Weights(correlation=0.8), SHORT)
        posterior = subject.encode(np.repeat(fa.train[:1], 4000, 0))
        np.testing.assert_allclose(np.corrcoef(posterior.sample(0).T), equicorrelation(3, 0.8).numpy(), atol=0.03)
        tc = -0.5 * np.linalg.slogdet(posterior.correlation)[1]
        assert tc == pytest.approx(-0.5 * float(torch.logdet(equicorrelation(3, 0.8).double())), abs=1e-6)


class TestFace:
    @pytest.mark.slow
    def test_bundle_gives_the_flow_of_the_codec(self):
        from eocodec.lab.subjects.face import FaceSubject, bundled_flow
        from eocodec.model.library import load_model
        from eocodec.model.transform import analyse_vector

        x = np.random.default_rng(0).random((2, 3, 64, 64)).astype(np.float32)
        subject = FaceSubject(*bundled_flow())
        z = subject.encode(x).mean
        np.testing.assert_allclose(z[0], analyse_vector(load_model("face64"), x[0].transpose(1, 2, 0)), atol=2e-4)
        np.testing.assert_allclose(subject.decode(z), x, atol=2e-4)
        with pytest.raises(ValueError, match="entropies"):
            FaceSubject(subject.flow, subject.entropies[:-1])


class TestFewSamples:
    def test_components_are_fewer_than_samples_and_orthogonal(self):
        x = np.random.default_rng(0).random((5, 3, 8, 8)).astype(np.float32)
        with pytest.warns(EocodecWarning, match="PCA has 4 of 16 latents: 5 samples vary in no more directions"):
            subject = PrincipalComponents.fit(x, 16)
        np.testing.assert_allclose(subject.rows @ subject.rows.T, np.eye(4), atol=1e-12)
        assert manifold(subject.grams(np.zeros((2, 4)))).total_correlation == pytest.approx(0, abs=1e-9)

    def test_components_without_variance_are_left_out(self):
        x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32) @ np.ones((3, 6), np.float32)
        with pytest.warns(EocodecWarning, match="PCA has 1 of 4 latents"):
            assert PrincipalComponents.fit(np.round(x), 4).latents == 1

    def test_equal_samples_have_no_components(self):
        for count in (1, 7):
            with pytest.raises(EocodecError, match="do not differ"):
                PrincipalComponents.fit(np.full((count, 6), 0.1, np.float32), 2)

    def test_a_flow_from_components_needs_more_samples_than_dimensions(self):
        x = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
        for samples in (x[:20], torch.cat([x[:, :19], x[:, :1]], 1)):
            with pytest.raises(EocodecError, match=f"not {len(samples)} in 20"):
                train_flow(samples, 0.0, FlowTraining(iterations=1, start="components"))
        train_flow(x, 0.0, FlowTraining(iterations=1, start="components"))
