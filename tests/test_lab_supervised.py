"""Supervised measures: the permuted truth gives one, noise nothing, and what must not matter does not."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from eocodec.lab.measures.supervised.factors import Factors
from eocodec.lab.measures.supervised.information import (
    binned,
    mig,
    modularity,
    mutual_information,
)
from eocodec.lab.measures.supervised.interventions import beta_vae_score, factor_vae_score, irs
from eocodec.lab.measures.supervised.predictors import dci, explicitness, sap

pytestmark = pytest.mark.slow

N = 4000
VOTES = (300, 200)
MEASURES = {
    "mig": mig,
    "modularity": modularity,
    "dci": lambda z, f, a=None: dci(z, f, a).disentanglement,
    "sap": sap,
    "factor_vae": lambda z, f, a=None: factor_vae_score(z, f, a, votes=VOTES),
    "beta_vae": lambda z, f, a=None: beta_vae_score(z, f, a, votes=VOTES),
    "irs": irs,
}


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (N, 3))


@pytest.fixture(scope="module")
def permuted(truth) -> np.ndarray:
    return np.hstack([truth[:, [2, 0, 1]], np.zeros((N, 2))])


@pytest.mark.parametrize("name", MEASURES)
def test_permuted_truth_gives_one(name, truth, permuted):
    floor = {"mig": 0.97, "irs": 0.9}.get(name, 0.99)
    assert MEASURES[name](permuted, Factors.continuous(truth)) >= floor


@pytest.mark.parametrize("name", MEASURES)
def test_rotated_truth_is_lower(name, truth, permuted):
    rotated = truth @ ortho_group.rvs(3, random_state=3)
    factors = Factors.continuous(truth)
    lower = MEASURES[name](rotated, factors)
    # a rotation keeps every factor distinguishable for the linear classifier of the β-VAE score, nearly
    assert lower < MEASURES[name](permuted, factors) - (0.0 if name == "beta_vae" else 0.05)


@pytest.mark.parametrize("name", [n for n in MEASURES if n not in ("modularity", "dci")])
def test_noise_gives_nothing(name, truth):
    noise = np.random.default_rng(2).standard_normal((N, 5))
    limit = {"factor_vae": 0.2, "beta_vae": 0.2, "irs": 0.1}.get(name, 0.01)
    assert MEASURES[name](noise, Factors.continuous(truth)) < limit


@pytest.mark.slow
def test_informativeness_and_explicitness_of_noise_are_zero(truth):
    noise = np.random.default_rng(2).standard_normal((N, 5))
    factors = Factors.continuous(truth)
    assert dci(noise, factors).informativeness < 0.02
    assert abs(explicitness(noise, factors)) < 0.05
    assert dci(truth, factors).informativeness > 0.99
    assert explicitness(truth, factors) > 0.5


@pytest.mark.parametrize("name", MEASURES)
def test_sign_scale_order_and_dead_codes_do_not_matter(name, truth):
    codes = truth + 0.3 * np.roll(truth, 1, axis=1)
    factors = Factors.continuous(truth)
    expected = MEASURES[name](codes, factors)
    changed = np.hstack([codes[:, [1, 2, 0]] * [-3.0, 0.5, 2.0], np.full((N, 2), 4.0)])
    changed[:, 3] += 1e-9 * np.random.default_rng(0).standard_normal(N)
    # groups are drawn alike, but forests and quantile bins see signs and order
    slack = {"dci": 0.03, "irs": 0.02, "mig": 0.02, "modularity": 0.02}.get(name, 1e-3)
    assert MEASURES[name](changed, factors) == pytest.approx(expected, abs=slack)


def test_marked_latents_alone_count(truth):
    noise = np.random.default_rng(2).standard_normal((N, 1))
    codes = np.hstack([truth, truth[:, :1] + 0.1 * noise])
    factors = Factors.continuous(truth)
    marked = np.array([True, True, True, False])
    assert sap(codes, factors, marked) > 0.99 > 0.7 > sap(codes, factors)


def test_plug_in_floor_is_subtracted():
    random = np.random.default_rng(0)
    a, b = random.integers(20, size=(2, N))
    plain = mutual_information(a, b, corrected=False)
    assert plain == pytest.approx(19 * 19 / (2 * N), abs=0.006)
    assert mutual_information(a, b) < 0.006


def test_hand_table():
    """Joint counts 4 1 / 1 4: I = log 2 − H(0.2)."""
    a = np.array([0] * 5 + [1] * 5)
    b = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    expected = np.log(2) + 0.2 * np.log(0.2) + 0.8 * np.log(0.8)
    assert mutual_information(a, b, corrected=False) == pytest.approx(expected)


def test_quantile_bins_rate_skewed_codes_as_the_truth(truth):
    skewed = np.exp(3 * truth)
    factors = Factors.continuous(truth)
    assert mig(skewed, factors) > 0.97
    assert mig(skewed, factors, spacing="width") < 0.8


def test_bins_are_even_or_of_equal_width():
    x = np.array([[0.0], [1.0], [2.0], [10.0]])
    assert binned(x, 2).ravel().tolist() == [0, 0, 1, 1]
    assert binned(x, 2, "width").ravel().tolist() == [0, 0, 0, 1]


def test_discrete_factors(truth):
    random = np.random.default_rng(4)
    shape, place = random.integers(3, size=N), random.integers(8, size=N)
    factors = Factors(np.stack([shape, place], 1).astype(float), (True, False), ("shape", "x"))
    codes = np.stack([place * 2.0, -1.0 * shape], 1) + 0.01 * random.standard_normal((N, 2))
    for name, measure in MEASURES.items():
        # quantile bins of codes straddle the values of a factor that has few
        assert measure(codes, factors) > (0.9 if name in ("irs", "mig") else 0.97), name


def test_one_factor_is_refused_by_modularity(truth):
    with pytest.raises(ValueError, match="two factors"):
        modularity(truth, Factors.continuous(truth[:, :1]))


def test_mismatched_samples_are_refused(truth):
    with pytest.raises(ValueError, match="same samples"):
        mig(truth[:10], Factors.continuous(truth))
