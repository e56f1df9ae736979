"""Measures of the lab without training: known truths and invariances."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import ortho_group

from eocodec.errors import EocodecError
from eocodec.lab.measures.alignment import align, greedy, similarity, stability
from eocodec.lab.measures.dirty import _clip_rows, dirty_model, dirty_model_by_validation, standardised
from eocodec.lab.measures.gaussian import (
    dependence,
    gaussian_total_correlation,
    gaussian_wasserstein,
    mean_pairwise_information,
)
from eocodec.lab.measures.heterogeneity import heterogeneity, quantile_grid
from eocodec.lab.measures.manifold import (
    H0,
    cross_pairwise_information,
    gaps,
    grams,
    manifold,
    pairwise_information,
    small_noise_gaps,
    variation,
)
from eocodec.lab.measures.separation import separation
from eocodec.lab.measures.supervised.factors import Factors
from eocodec.lab.measures.supervised.information import mig

BLOCKS = np.kron(np.eye(3), np.ones((1, 5)))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


class TestHeterogeneity:
    def test_linear_decoder_gives_the_shares_of_its_loadings(self, random):
        loadings = random.standard_normal((4, 9))
        loadings[2] = 0
        codes = random.standard_normal((50, 4)) * [1, 2, 3, 0.5]
        grid = quantile_grid(codes)
        found = heterogeneity(lambda z: z @ loadings, codes, grid, np.ones(9))
        expected = grid.var(0)[:, None] * loadings**2
        np.testing.assert_allclose(found.shares, expected / expected.sum(0), atol=1e-6)
        assert found.variance[2].max() < 1e-25 and not found.informative[2]

    def test_interaction_is_averaged_over_base_codes(self, random):
        codes = random.standard_normal((300, 2))
        found = heterogeneity(lambda z: z[:, :1] * z[:, 1:], codes, quantile_grid(codes), np.ones(1))
        grid = quantile_grid(codes)
        expected = [grid[:, 0].var() * np.mean(codes[:, 1] ** 2), grid[:, 1].var() * np.mean(codes[:, 0] ** 2)]
        np.testing.assert_allclose(found.variance[:, 0], expected, rtol=1e-10)

    def test_feature_that_is_constant_but_for_rounding_is_not_covered(self):
        found = heterogeneity(lambda z: z, np.zeros((4, 2)), np.ones((3, 2)) * [[0], [1], [2]], np.array([1.0, 1e-33]))
        assert found.covered.tolist() == [True, False]

    def test_feature_without_variance_is_not_covered(self):
        z = np.array([[0.0], [1.0]])
        found = heterogeneity(lambda z: np.hstack([z, z]), z, quantile_grid(z), np.array([0.25, 0.0]))
        assert found.covered.tolist() == [True, False]


class TestDirtyModel:
    @pytest.fixture
    def shared_and_private(self, random):
        z = random.standard_normal((2000, 8))
        truth = np.zeros((8, 15))
        truth[:3] = BLOCKS
        truth[5] = 0.3
        return z, z @ truth + 0.3 * random.standard_normal((2000, 15)), truth

    def test_finds_support_and_the_shared_latent(self, shared_and_private):
        z, x, truth = shared_and_private
        found = dirty_model(z, x)
        assert np.array_equal(found.support, truth != 0)
        assert found.support.sum() == 30
        assert found.shared.tolist() == [k == 5 for k in range(8)]

    def test_one_part_vanishes_exactly_at_its_threshold(self, shared_and_private):
        z, x, _ = shared_and_private
        assert not dirty_model(z, x, 0.05, 0.06).element.any()
        assert dirty_model(z, x, 0.3, 0.05).element.any()
        for block, element in ((0.2, 0.0123), (0.5, 0.03)):
            assert not dirty_model(z, x, block, element).block.any()
        assert dirty_model(z, x, 0.2, 0.05).block.any()

    def test_optimality_conditions_hold(self, shared_and_private):
        z, x, _ = shared_and_private
        found = dirty_model(z, x)
        zs, xs = standardised(z), standardised(x)
        gradient = zs.T @ (zs @ (found.block + found.element) - xs) / len(z)
        assert np.abs(gradient).max() == pytest.approx(0.05, abs=1e-5)
        assert np.abs(gradient).sum(1).max() == pytest.approx(0.3, abs=1e-4)
        active = found.element != 0
        np.testing.assert_allclose(gradient[active], -0.05 * np.sign(found.element[active]), atol=1e-5)

    @pytest.mark.parametrize("radius", [0.1, 1.0, 30.0])
    def test_proximal_map_is_the_rest_of_the_projection_on_the_l1_ball(self, random, radius):
        x = random.standard_normal((5, 7)) * 3
        rest = x - _clip_rows(x, radius)
        norms = np.abs(rest).sum(1)
        assert (norms <= radius + 1e-9).all()
        outside = np.abs(x).sum(1) > radius
        np.testing.assert_allclose(norms[outside], radius)
        np.testing.assert_allclose(rest[~outside], x[~outside])

    def test_group_lasso_rows_and_validation(self, shared_and_private):
        z, x, truth = shared_and_private
        assert np.array_equal(dirty_model(z, x, rows="l2").support[:3], truth[:3] != 0)
        chosen = dirty_model_by_validation(z, x)
        assert chosen.support[truth != 0].all()
        assert chosen.weights[0] == pytest.approx(6 * chosen.weights[1])
        with pytest.raises(ValueError, match="norm of rows"):
            dirty_model(z, x, rows="l1")

    def test_constant_columns_get_nothing(self, shared_and_private):
        z, x, _ = shared_and_private
        z = z.copy()
        z[:, 0] = 7.0
        assert not dirty_model(z, x).support[0].any()


class TestSeparation:
    def test_blocks_are_separate_and_equal_entries_are_not(self):
        assert separation(BLOCKS).lssi == pytest.approx(1.0)
        assert separation(np.ones((3, 15))).lssi < 1e-12

    def test_rows_may_be_permuted_and_dead_ones_added(self, random):
        a = BLOCKS + 0.2 * random.random((3, 15))
        expected = separation(a)
        assert separation(a[[2, 0, 1]]).lssi == pytest.approx(expected.lssi)
        padded = separation(np.vstack([a, np.zeros((5, 15)), np.full((1, 15), 1e-4)]))
        assert padded.lssi == pytest.approx(expected.lssi) and padded.informative == 3

    def test_rotation_of_the_truth_lowers_it(self):
        for seed in range(5):
            rotated = np.square(ortho_group.rvs(3, random_state=seed) @ BLOCKS)
            assert separation(rotated).lssi < 0.9

    def test_zero_without_information_or_with_one_owner(self):
        assert separation(np.zeros((3, 15))).lsdi == 0
        assert separation(np.vstack([np.ones((1, 15)), np.zeros((2, 15))])).lssi == 0
        # continuous: an owner of nearly everything gives nearly nothing
        unequal = np.array([[1.0] * 99 + [0.0], [0.0] * 99 + [1.0]])
        assert 0 < separation(unequal).lssi < 0.1

    def test_coverage_scales_the_disentanglement_index(self):
        half = np.hstack([BLOCKS, np.zeros((3, 15))])
        found = separation(half)
        assert found.lssi == pytest.approx(1.0) and found.lsdi == pytest.approx(0.5)

    def test_negative_entries_are_refused(self):
        with pytest.raises(ValueError, match="negative"):
            separation(-BLOCKS)


class TestAlignment:
    def test_known_permutation_and_signs_are_recovered(self, random):
        a = random.standard_normal((800, 6))
        order, signs = random.permutation(6), random.choice([-1.0, 1.0], 6)
        b = a[:, order] * signs + 0.1 * random.standard_normal((800, 6))
        for kind in ("pearson", "spearman", "information"):
            found = align(a, b, kind)
            assert np.array_equal(order[found.other], found.reference)
            assert np.array_equal(found.sign, signs[found.other])
            assert np.corrcoef(found.apply(b, 6).T, a.T)[:6, 6:].diagonal().min() > 0.98

    def test_greedy_is_at_least_half_of_the_best_assignment(self, random):
        for _ in range(50):
            c = random.random((7, 5))
            rows, columns = linear_sum_assignment(-c)
            total = sum(c[p] for p in greedy(c))
            assert c[rows, columns].sum() / 2 <= total <= c[rows, columns].sum() + 1e-12

    def test_greedy_is_the_best_assignment_when_the_diagonal_dominates(self, random):
        c = 0.3 * random.random((6, 6)) + np.eye(6)
        assert sorted(greedy(c)) == [(k, k) for k in range(6)]

    def test_unlike_latents_stay_unmatched(self, random):
        a = random.standard_normal((2000, 3))
        b = np.hstack([a[:, :1], random.standard_normal((2000, 2))])
        assert align(a, b).reference.tolist() == [0]

    def test_stability_of_copies_is_one_and_needs_two_runs(self, random):
        a = random.standard_normal((100, 3))
        assert stability([a, -a[:, ::-1], 2 * a]) == pytest.approx(1.0)
        assert np.isnan(stability([a]))


class TestGaussian:
    def test_correlation_gives_its_total_correlation(self, random):
        covariance = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 1.0]])
        z = random.multivariate_normal(np.zeros(3), covariance, 20000)
        expected = -0.5 * np.linalg.slogdet(covariance)[1]
        assert gaussian_total_correlation(z) == pytest.approx(expected, abs=0.01)
        found = dependence(np.exp(z))  # a copula does not see what is done to each latent alone
        assert found.total_correlation == pytest.approx(expected, abs=0.01)
        np.testing.assert_allclose(found.information, 0.5 * np.log(np.diag(np.linalg.inv(covariance))), atol=0.015)

    def test_independent_latents_read_zero(self, random):
        z = random.standard_normal((2000, 5))
        found = dependence(z)
        assert found.total_correlation < 0.003 and found.information.max() < 0.005
        assert mean_pairwise_information(z) < 0.015
        assert gaussian_wasserstein(z) < 0.003

    def test_latents_that_do_not_vary_change_nothing(self, random):
        z = random.multivariate_normal(np.zeros(3), [[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 1.0]], 4000)
        for dead in (np.zeros(4000), np.full(4000, 0.1), 0.3 + 1e-16 * random.standard_normal(4000)):
            with_dead = np.insert(z, 1, dead, axis=1)
            found, expected = dependence(with_dead), dependence(z)
            assert expected.total_correlation == pytest.approx(0.66, abs=0.05)
            assert found.total_correlation == pytest.approx(expected.total_correlation, abs=0.005)
            np.testing.assert_allclose(np.delete(found.information, 1), expected.information, atol=0.005)
            assert found.information[1] == 0
            for measure in (gaussian_total_correlation, mean_pairwise_information, gaussian_wasserstein):
                assert measure(with_dead) == pytest.approx(measure(z), rel=1e-6), measure.__name__
            for kind in ("pearson", "spearman", "information"):
                assert not similarity(with_dead, with_dead, kind)[1].any(), kind
        assert dependence(np.full((50, 2), 0.1)).total_correlation == 0

    def test_latents_that_follow_from_others_are_infinitely_dependent(self, random):
        z = random.standard_normal((2000, 3))
        twice = z[:, [0, 0, 2]]
        assert gaussian_total_correlation(twice) == np.inf == dependence(twice).total_correlation
        assert dependence(twice).information[:2].tolist() == [np.inf, np.inf]
        assert dependence(twice).information[2] < 0.005
        assert gaussian_total_correlation(np.c_[z, z.sum(1)]) == np.inf

    def test_too_few_samples_for_the_latents_are_refused(self, random):
        for measure in (dependence, gaussian_total_correlation):
            with pytest.raises(EocodecError, match="dependence of 6 latents needs more than 6 samples, not 5"):
                measure(random.standard_normal((5, 6)))
        with pytest.raises(EocodecError, match="3 samples are too few"):
            dependence(random.standard_normal((3, 2)))

    @pytest.mark.slow
    def test_boosting_sees_what_correlation_does_not(self, random):
        a = random.standard_normal(600)
        z = np.stack([a, a**2 + 0.1 * random.standard_normal(600)], 1)
        assert dependence(z).information[1] < 0.02
        assert dependence(z, nonlinear=True).information[1] > 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_every_measure(random, bad):
    good = random.standard_normal((40, 3))
    z = good.copy()
    z[3, 1] = bad
    square = z[:3].reshape(1, 3, 3).repeat(2, 0)
    square[0, 1, 1] = bad
    for measure in (
        lambda: dependence(z),
        lambda: gaussian_total_correlation(z),
        lambda: gaussian_wasserstein(z),
        lambda: mean_pairwise_information(z),
        lambda: dirty_model(z, good),
        lambda: dirty_model(good, z),
        lambda: dirty_model_by_validation(z, good),
        lambda: align(z, good),
        lambda: similarity(good, z, "spearman"),
        lambda: similarity(good, z, "information"),
        lambda: heterogeneity(lambda codes: codes, z, quantile_grid(good), good.var(0)),
        lambda: heterogeneity(lambda codes: codes, good, quantile_grid(good), z.var(0)),
        lambda: separation(np.abs(z)),
        lambda: grams(square),
        lambda: cross_pairwise_information(square, square),
        lambda: variation(square),
        lambda: mig(z, Factors.continuous(good)),
    ):
        with pytest.raises(EocodecError, match="not finite numbers"), np.errstate(invalid="ignore"):
            measure()


class TestManifold:
    def test_a_latent_that_moves_nothing_shares_nothing(self, random):
        j = random.standard_normal((4, 9, 3))
        dead = np.insert(j, 1, 0.0, axis=2)
        assert manifold(grams(dead)).total_correlation == pytest.approx(manifold(grams(j)).total_correlation)

    def test_identity_of_gaps_and_total_correlations(self, random):
        j = random.standard_normal((3, 9, 4))
        found = gaps(grams(j), 0.7)
        assert found.gap.sum() == pytest.approx(found.total_correlation + found.dual_total_correlation, abs=1e-12)
        assert (found.gap >= 0).all()

    def test_linear_map_has_the_exact_mutual_informations(self, random):
        """Against determinants of the joint covariance of z and x."""
        j, sigma = random.standard_normal((5, 3)), 0.4
        joint = np.block([[np.eye(3), j.T], [j, j @ j.T + sigma**2 * np.eye(5)]])

        def h(places):
            return 0.5 * np.linalg.slogdet(joint[np.ix_(places, places)])[1] if places else 0.0

        x = [3, 4, 5, 6, 7]
        found = gaps(grams(j[None]), sigma)
        for i in range(3):
            others = [k for k in range(3) if k != i]
            alone = h([i]) + h(x) - h([i, *x])
            given = h([i, *others]) + h([*others, *x]) - h([i, *others, *x]) - h(others)
            assert found.alone[i] == pytest.approx(alone, abs=1e-10)
            assert found.given_others[i] == pytest.approx(given, abs=1e-10)

    def test_explained_entropy_above_the_floor_is_conditional_information(self, random):
        j, sigma = random.standard_normal((4, 6, 6)), 1e-5
        floor = 0.5 * np.log(2 * np.pi * np.e * sigma**2)
        np.testing.assert_allclose(gaps(grams(j), sigma).given_others, manifold(grams(j)).spectrum - floor, atol=1e-8)

    def test_small_noise_limit_is_the_product_of_column_and_row_norms(self, random):
        j = random.standard_normal((4, 6, 6))
        f = np.linalg.inv(j)
        c = small_noise_gaps(np.linalg.norm(j, axis=1), np.linalg.norm(f, axis=2))
        found = gaps(grams(j), 1e-6)
        np.testing.assert_allclose(found.gap, c, atol=1e-6)
        assert found.dual_total_correlation == pytest.approx(manifold(grams(j)).total_correlation, abs=1e-6)
        tc = np.log(np.linalg.norm(f, axis=2)).sum(1) - np.linalg.slogdet(f)[1]
        assert c.sum() == pytest.approx(tc.mean() + manifold(grams(j)).total_correlation, abs=1e-10)

    def test_orthogonal_columns_share_nothing(self):
        q = ortho_group.rvs(6, random_state=0)[None, :, :4] * np.array([3.0, 2.0, 1.0, 0.1])
        assert np.abs(gaps(grams(q), 0.5).gap).max() < 1e-12
        assert np.abs(pairwise_information(grams(q))).max() < 1e-12
        found = manifold(grams(q))
        assert found.total_correlation == pytest.approx(0.0, abs=1e-12)
        np.testing.assert_allclose(found.spectrum, H0 + np.log([3.0, 2.0, 1.0, 0.1]))

    def test_pairwise_information_is_that_of_the_angle(self):
        angle = 0.6
        j = np.array([[1.0, np.cos(angle)], [0.0, np.sin(angle)]])[None]
        assert pairwise_information(grams(j))[0, 1] == pytest.approx(-np.log(np.sin(angle)))

    def test_identical_directions_are_cut(self):
        assert cross_pairwise_information(np.eye(3)[None], np.eye(3)[None])[0, 0] == pytest.approx(10.0)

    def test_linear_map_does_the_same_everywhere(self, random):
        assert variation(np.broadcast_to(random.random((1, 1, 5)), (8, 3, 5))).max() < 1e-30
        assert variation(random.random((8, 3, 5))).min() > 0
