"""What training is to give: factors found and missed, assumptions violated, known entropies. Some minutes in all."""

import dataclasses

import numpy as np
import pytest
import torch

from eocodec.flow.dense import log_normal
from eocodec.lab.data.factor_analysis import factor_analysis
from eocodec.lab.data.manifolds import torus, torus_spectrum
from eocodec.lab.measures.alignment import similarity, stability
from eocodec.lab.measures.dirty import dirty_model
from eocodec.lab.measures.heterogeneity import heterogeneity, quantile_grid
from eocodec.lab.measures.manifold import manifold
from eocodec.lab.measures.separation import separation
from eocodec.lab.subjects.flow import FlowSubject, FlowTraining, train_flow
from eocodec.lab.subjects.objective import METHODS, Weights
from eocodec.lab.subjects.vae import Training, train_vae

pytestmark = pytest.mark.slow

ITERATIONS = 450  # of a VAE, after which the measures hardly change


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def latents_of(weights: Weights, iterations: int, seed: int = 0) -> tuple[float, float, np.ndarray]:
    """FVH-LSSI, DBSR-LSSI and codes of informative latents of a VAE on uniform FA15."""
    data = factor_analysis("fa15")
    subject = train_vae(data.train, 8, weights, Training(iterations), seed)
    codes = subject.encode(data.held_out).mean
    found = heterogeneity(subject.decode, codes[:256], quantile_grid(codes), data.held_out.var(0))
    regression = separation(dirty_model(codes, data.held_out.astype(float)).association)
    return separation(found.variance).lssi, regression.lssi, codes[:, found.informative]


def test_total_correlation_finds_the_factors_that_a_vae_mixes_and_correlated_noise_hides_them():
    plain, _, _ = latents_of(METHODS["VAE"], ITERATIONS)
    assert plain < 0.45
    runs = [latents_of(METHODS["FactorVAE"], ITERATIONS, seed) for seed in range(2)]
    factors = factor_analysis("fa15").factors.values
    for lssi, regression, codes in runs:
        assert lssi > 0.95 and abs(lssi - regression) < 0.05
        assert codes.shape[1] == 3
        assert similarity(codes, factors).max(0).min() > 0.95
    assert stability([codes for _, _, codes in runs]) > 0.98
    violated, _, _ = latents_of(dataclasses.replace(METHODS["FactorVAE"], correlation=0.9), ITERATIONS)
    assert runs[0][0] - violated > 0.5


def test_torus_entropies_are_found():
    data = torus(circles=3)
    flow = train_flow(
        torch.from_numpy(data.train),
        1.0,
        FlowTraining(200, 256, 5e-3, 5e-3, 2, 32, start="components", optimiser="soap"),
    )
    subject = FlowSubject("flow", flow, data.shape, data.noise)
    z = subject.encode(data.held_out[:400]).mean
    found = manifold(subject.grams(z, 200), log_normal(torch.from_numpy(z)).numpy())
    assert np.abs(np.sort(found.spectrum)[::-1] - torus_spectrum(3)).max() < 0.15
    assert found.total_correlation < 0.1
