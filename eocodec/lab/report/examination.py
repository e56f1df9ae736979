"""Every measure of one subject on one set, as plain values for JSON.

In: a subject, a set. Out: a dictionary (see `examine`) and the codes of the held-out samples, for alignment over runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.errors import EocodecError
from eocodec.lab.data.dataset import Dataset
from eocodec.lab.measures.alignment import greedy
from eocodec.lab.measures.dirty import dirty_model
from eocodec.lab.measures.gaussian import (
    dependence,
    gaussian_total_correlation,
    gaussian_wasserstein,
    mean_pairwise_information,
)
from eocodec.lab.measures.heterogeneity import heterogeneity, quantile_grid
from eocodec.lab.measures.manifold import (
    cross_pairwise_information,
    gaps,
    log_norms,
    manifold,
    pairwise_information,
    variation,
)
from eocodec.lab.measures.separation import separation
from eocodec.lab.measures.supervised.factors import Factors
from eocodec.lab.measures.supervised.information import mig, modularity
from eocodec.lab.measures.supervised.interventions import beta_vae_score, factor_vae_score, irs
from eocodec.lab.measures.supervised.predictors import dci, explicitness, sap
from eocodec.lab.subjects.subject import Core, Posterior, Subject

__all__ = ["Effort", "check_samples", "examine", "same_pairs", "shared_directions", "supervised"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Arguments:
        top: latents, the most important ones.
        base_codes, grid: samples and values of the traversals.
        jacobians: samples at which the decoder is linearised.
        contexts, values: of the variation M2.
        votes: groups of the FactorVAE and β-VAE scores, to learn from and to score.
    """

    top: int = 16
    base_codes: int = 256
    grid: int = 21
    jacobians: int = 64
    contexts: int = 32
    values: int = 5
    votes: tuple[int, int] = (1000, 500)

    @staticmethod
    def suited(data: Dataset, top: int = 16) -> "Effort":
        """Less for pictures, whose decoders are slower."""
        return Effort(top, 32, 9, 32, 16, 5) if data.pictures else Effort(top)


def examine(
    subject: Subject, data: Dataset, effort: Effort | None = None, say: Callable[[str], object] = lambda stage: None
) -> tuple[dict[str, Any], Floats]:
    """All measures of the subject's most important latents.

    Arguments:
        subject: what is measured.
        data: on whose held-out samples.
        effort: how much; None suits the set.
        say: called with what is measured next.

    Returns:
        Plain values under `latents`, `kl`, `spectrum`, `fvh`, `dbsr`, `gaps`, `mpmi`, `variation`, `dependence`,
        `unsupervised` and, where factors are known, `supervised`; and the means of the latents `(n, K)`.

    Raises:
        EocodecError: there are too few held-out samples.
    """
    effort = effort or Effort.suited(data)
    x = data.held_out
    check_samples(subject.name, min(effort.top, subject.latents), data)
    core = Core.top(subject, x, min(effort.top, subject.latents))
    posterior = core.encode(x)
    codes = posterior.mean
    result: dict[str, Any] = {
        "name": subject.name,
        "set": data.name,
        "latents": subject.latents,
        "order": core.order.tolist(),
        "kl": _rounded(posterior.kl),
        "reconstruction": round(float(np.square(core.decode(codes[:512]) - x[:512]).mean()), 6),
    }
    say("traversals")
    features = data.features(x)
    found = heterogeneity(
        lambda z: data.features(core.decode(z)),
        codes[: effort.base_codes],
        quantile_grid(codes, effort.grid),
        features.var(0),
    )
    result["fvh"] = {
        "variance": _rounded(found.variance),
        "informative": found.informative.tolist(),
        "gini": _rounded(found.gini),
        **_indices(found.variance),
    }
    say("regression")
    model = dirty_model(codes, features)
    result["dbsr"] = {
        "block": _rounded(model.block),
        "element": _rounded(model.element),
        "weights": list(model.weights),
        **_indices(model.association),
    }
    say("Jacobians")
    result |= _geometry(core, posterior, effort, data.noise)
    result["dependence"] = _dependence(posterior)
    active = found.informative
    result["unsupervised"] = _unsupervised(codes[:, active]) if active.any() else {}
    if data.factors is not None:
        say("supervised measures")
        result["supervised"] = supervised(codes, data.factors, active, effort.votes)
    return result, codes


def check_samples(name: str, latents: int, data: Dataset) -> None:
    """See that there are enough samples to measure so many latents of the subject that is called `name`.

    Raises:
        EocodecError: there are not.
    """
    held_out = len(data.held_out)
    if held_out <= latents:
        many = "1 latent" if latents == 1 else f"{latents} latents"
        raise EocodecError(
            f"measuring {many} of {name} needs more than {latents} held-out samples, not {held_out}; "
            f"hold out more, or measure fewer (top)"
        )


def _rounded(x: npt.ArrayLike, digits: int = 5) -> Any:
    return np.round(np.asarray(x, np.float64), digits).tolist()


def _indices(association: Floats) -> dict[str, Any]:
    found = separation(association)
    return {
        "lssi": round(found.lssi, 4),
        "lsdi": round(found.lsdi, 4),
        "coverage": round(found.coverage, 4),
        "count": found.informative,
    }


def _geometry(core: Core, posterior: Posterior, effort: Effort, noise: float) -> dict[str, Any]:
    """Spectrum, gaps, pairwise information and variation, at codes of samples."""
    codes = posterior.mean
    gram = core.grams(codes[: effort.jacobians])
    entropies, gap = manifold(gram), gaps(gram, noise)
    grid = quantile_grid(codes, effort.values, 0.1)
    norms = np.zeros((effort.contexts, effort.values, core.latents))
    for k in range(core.latents):
        direction = np.zeros((effort.contexts, core.latents))
        direction[:, k] = 1.0
        for r in range(effort.values):
            at = codes[: effort.contexts].copy()
            at[:, k] = grid[r, k]
            # one column of the decoder as a Gram matrix of a single entry
            column = core.jvp(at, direction[: len(at)])
            norms[: len(at), r, k] = log_norms(np.square(column).sum(1)[:, None, None])[:, 0]
    norms = norms[: len(codes)]
    return {
        "spectrum": {
            "entropy": _rounded(entropies.spectrum),
            "mtc": round(entropies.total_correlation, 4),
            "mtc_per_latent": round(entropies.total_correlation_per_latent, 5),
        },
        "gaps": {
            "noise": round(noise, 6),
            "c": _rounded(gap.gap),
            "given_others": _rounded(gap.given_others),
            "alone": _rounded(gap.alone),
            "mean": round(float(gap.gap.mean()), 4),
            "max": round(float(gap.gap.max()), 4),
            "sum": round(float(gap.gap.sum()), 4),
            "tc": round(gap.total_correlation, 4),
            "dtc": round(gap.dual_total_correlation, 4),
        },
        "mpmi": _rounded(pairwise_information(gram)),
        "variation": _rounded(variation(norms)),
    }


def shared_directions(a: Subject, b: Subject, data: Dataset, top: int, samples: int = 16) -> Floats:
    """MCPMI `(K, K')` of the most important latents of two subjects, at the same held-out samples; nats."""
    x = data.held_out
    jacobians = []
    for subject in (a, b):
        core = Core.top(subject, x, min(top, subject.latents))
        jacobians.append(core.jacobians(core.encode(x[:samples]).mean))
    return cross_pairwise_information(*jacobians)


def same_pairs(information: Floats, strength: Floats) -> int:
    """How many pairs of latents greedy alignment finds both by MCPMI and by correlation, `(K, K')` each."""
    return len(set(greedy(information)) & set(greedy(strength)))


def _dependence(posterior: Posterior) -> dict[str, Any]:
    """`Δ_i = I(z_i; z_−i | x) − I(z_i; z_−i)`; the first is that of the posterior's noise, if it has any."""
    found = dependence(posterior.sample(0))
    given = np.zeros(posterior.mean.shape[1])
    if posterior.correlation is not None:
        given = 0.5 * np.log(np.diag(np.linalg.inv(posterior.correlation)))
    tc = 0.0 if posterior.correlation is None else -0.5 * float(np.linalg.slogdet(posterior.correlation)[1])
    return {
        "between": _rounded(found.information),
        "given_x": _rounded(given),
        "delta": _rounded(given - found.information),
        "total_correlation": round(found.total_correlation, 4),
        "null": round(found.null, 4),
        "posterior_tc": round(tc, 6),
    }


def _unsupervised(codes: Floats) -> dict[str, float]:
    return {
        "gaussian_tc": round(gaussian_total_correlation(codes), 4),
        "gaussian_wasserstein": round(gaussian_wasserstein(codes), 5),
        "pairwise_information": round(mean_pairwise_information(codes), 4),
    }


def supervised(
    codes: Floats,
    factors: Factors,
    active: npt.NDArray[np.bool_] | None = None,
    votes: tuple[int, int] = (1000, 500),
) -> dict[str, Any]:
    """All supervised measures of codes `(n, K)`; for one factor, those that compare factors are None."""
    several = len(factors.names) > 1
    parts = dci(codes, factors, active)
    return {
        "mig": round(mig(codes, factors, active), 4),
        "mig_equal_width": round(mig(codes, factors, active, spacing="width"), 4),
        "dci_disentanglement": round(parts.disentanglement, 4) if several else None,
        "dci_completeness": round(parts.completeness, 4),
        "dci_informativeness": round(parts.informativeness, 4),
        "importance": _rounded(parts.importance),
        "sap": round(sap(codes, factors, active), 4),
        "factor_vae_score": round(factor_vae_score(codes, factors, active, votes=votes), 4) if several else None,
        "beta_vae_score": round(beta_vae_score(codes, factors, active, votes=votes), 4) if several else None,
        "modularity": round(modularity(codes, factors, active), 4) if several else None,
        "explicitness": round(explicitness(codes, factors, active), 4),
        "irs": round(irs(codes, factors, active), 4),
        "samples": len(codes),
        "bins": 20,
    }
