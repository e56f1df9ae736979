"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners.

For every parameter the second moments of the gradient along each of its axes are averaged; Adam runs in the basis of
their eigenvectors, which follows slowly by one step of orthogonal iteration every few updates. The axes of the photo
model's nets are at most a few hundred long, so all this costs a few percent of a training step.

References:
    Vyas et al., *SOAP: improving and stabilizing Shampoo using Adam*, ICLR 2025. https://arxiv.org/abs/2409.11321
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Soap"]


class Soap(torch.optim.Optimizer):
    """Optimiser with Adam's interface.

    Arguments:
        params: parameters or groups of them.
        lr: learning rate, as for Adam.
        betas: decay of the first and second moments.
        eps: added to the root of the second moments.
        shampoo_beta: decay of the preconditioners.
        every: updates between two steps of the basis.
        largest: axes longer than this keep their own basis.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
        >>> optimiser = Soap([w], lr=0.05)
        >>> for k in range(300):
        ...     optimiser.param_groups[0]["lr"] = 0.05 * (1 - k / 300)
        ...     optimiser.zero_grad()
        ...     (w @ torch.tensor([[1.0], [30.0]])).square().sum().backward()
        ...     optimiser.step()
        >>> bool((w @ torch.tensor([[1.0], [30.0]])).abs().max() < 0.1)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        shampoo_beta: float = 0.95,
        every: int = 10,
        largest: int = 512,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "shampoo_beta": shampoo_beta,
                "every": every,
                "largest": largest,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update. The first one only measures the preconditioners."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        shape = _axes(p)
        g = gradient.reshape(shape)
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["average"], state["square"] = torch.zeros_like(g), torch.zeros_like(g)
            # Axes of one number, and of one axis alone, gain nothing.
            usable = [1 < n <= group["largest"] and len(shape) > 1 for n in shape]
            state["moments"] = [g.new_zeros(n, n) if u else None for n, u in zip(shape, usable, strict=True)]
            _measure(state["moments"], g, 1 - group["shampoo_beta"])
            state["bases"] = [None if m is None else _eigenvectors(m) for m in state["moments"]]
            return
        state["step"] += 1
        first, second = group["betas"]
        turned = _turn(g, state["bases"])
        state["average"].lerp_(turned, 1 - first)
        state["square"].lerp_(turned.square(), 1 - second)
        correction = (1 - second ** state["step"]) ** 0.5 / (1 - first ** state["step"])
        update = state["average"] / (state["square"].sqrt() + group["eps"])
        p.sub_(_turn(update, state["bases"], back=True).reshape(p.shape), alpha=group["lr"] * correction)
        _measure(state["moments"], g, 1 - group["shampoo_beta"])
        if state["step"] % group["every"] == 0:
            average = _turn(state["average"], state["bases"], back=True)
            _follow(state)
            state["average"] = _turn(average, state["bases"])


def _eigenvectors(moment: Tensor) -> Tensor:
    """Eigenvectors of a moment, by falling eigenvalues; the axes themselves where there are none to be found.

    Single precision does not always converge where many eigenvalues are zero, as after one gradient.
    """
    try:
        return torch.linalg.eigh(moment.double())[1].flip(1).to(moment.dtype)
    except RuntimeError:  # LinAlgError is one
        return torch.eye(len(moment), dtype=moment.dtype, device=moment.device)


def _axes(p: Tensor) -> tuple[int, ...]:
    """The axes of a parameter: those of a kernel joined to one, single ones left out."""
    shape = (*p.shape[:2], p.shape[2:].numel()) if p.dim() > 2 else tuple(p.shape)
    return tuple(n for n in shape if n > 1) or (1,)


def _turn(g: Tensor, bases: list[Tensor | None], back: bool = False) -> Tensor:
    """g in the bases' coordinates, or back from them. Each product moves the axis it takes to the end."""
    for basis in bases:
        g = g.movedim(0, -1) if basis is None else torch.tensordot(g, basis, dims=([0], [1 if back else 0]))
    return g


def _measure(moments: list[Tensor | None], g: Tensor, rate: float) -> None:
    """Average the second moments of g along every axis."""
    for axis, moment in enumerate(moments):
        if moment is not None:
            rows = g.movedim(axis, 0).flatten(1)
            moment.lerp_(rows @ rows.T, rate)


def _follow(state: dict[str, Any]) -> None:
    """One step of orthogonal iteration for every basis, its vectors sorted by their eigenvalues."""
    for axis, (moment, basis) in enumerate(zip(state["moments"], state["bases"], strict=True)):
        if moment is None:
            continue
        order = torch.argsort((basis * (moment @ basis)).sum(0), descending=True)
        state["square"] = state["square"].index_select(axis, order)
        state["bases"][axis] = torch.linalg.qr(moment @ basis[:, order])[0]
