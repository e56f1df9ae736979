"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners.

For every parameter the second moments of the gradient along each of its axes are averaged; Adam runs in the basis of
their eigenvectors, which follows slowly by one step of orthogonal iteration every few updates. The axes of the photo
model's nets are at most a few hundred long, so all this costs a few percent of a training step. Parameters of one shape
are updated together, for a net of many small layers is otherwise a thousand small products a step.

References:
    Vyas et al., *SOAP: improving and stabilizing Shampoo using Adam*, ICLR 2025. https://arxiv.org/abs/2409.11321
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Soap"]


@dataclass
class _Stack:
    """State of parameters of one shape, the parameter being the first axis; what `Soap.state` holds are views of it."""

    average: Tensor
    square: Tensor
    moments: list[Tensor | None]
    bases: list[Tensor | None]
    rate: Tensor
    views: list[Tensor]

    def belongs_to(self, states: list[dict[str, Any]]) -> bool:
        """Whether the states are still the views of this stack."""
        return all(s["average"] is view for s, view in zip(states, self.views, strict=True))


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
        graphs: replay updates as a CUDA graph: for parameters on a GPU whose gradients stay where they are.

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
        graphs: bool = False,
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
        self.graphs = graphs
        self._graph: tuple[tuple[int, ...], int, Any] | None = None
        self._stacks: dict[tuple[int, ...], _Stack] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update. The first one of a parameter only measures its preconditioners."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work: list[_Work] = []
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((_axes(p), p.dtype, p.device, self.state[p].get("step")), []).append(p)
            for (shape, *_, step), parameters in alike.items():
                if step is None:
                    gradient = torch.stack([p.grad.reshape(shape) for p in parameters])  # type: ignore[union-attr]
                    self._begin(parameters, gradient, group)
                else:
                    work.append(_Work(parameters, self._stack(parameters), group, step))
        if work:
            self._update(work)
        return loss

    def _begin(self, parameters: list[Tensor], g: Tensor, group: dict[str, Any]) -> None:
        shape = g.shape[1:]
        # Axes of one number, and of one axis alone, gain nothing.
        usable = [1 < n <= group["largest"] and len(shape) > 1 for n in shape]
        moments = [g.new_zeros(len(g), n, n) if u else None for n, u in zip(shape, usable, strict=True)]
        _measure(moments, g, 1 - group["shampoo_beta"])
        bases = [None if m is None else torch.stack([_eigenvectors(one) for one in m]) for m in moments]
        for k, p in enumerate(parameters):
            self.state[p].update(
                step=0,
                average=torch.zeros_like(g[k]),
                square=torch.zeros_like(g[k]),
                moments=[None if m is None else m[k] for m in moments],
                bases=[None if b is None else b[k] for b in bases],
            )

    def _stack(self, parameters: list[Tensor]) -> _Stack:
        """The states of parameters of one shape as one."""
        states = [self.state[p] for p in parameters]
        key = tuple(id(p) for p in parameters)
        stack = self._stacks.get(key)
        if stack is None or not stack.belongs_to(states):
            average, square = (torch.stack([s[name] for s in states]) for name in ("average", "square"))
            moments, bases = (
                [None if one[0] is None else torch.stack(one) for one in zip(*(s[name] for s in states), strict=True)]
                for name in ("moments", "bases")
            )
            stack = self._stacks[key] = _Stack(average, square, moments, bases, average.new_zeros(()), list(average))
            for k, s in enumerate(states):
                s["average"], s["square"] = stack.views[k], square[k]
                s["moments"] = [None if m is None else m[k] for m in moments]
                s["bases"] = [None if b is None else b[k] for b in bases]
        return stack

    def _update(self, work: "list[_Work]") -> None:
        """One update of parameters that have had their first."""
        for w in work:
            step = w.step + 1
            first, second = w.group["betas"]
            correction = (1 - second**step) ** 0.5 / (1 - first**step)
            w.stack.rate.fill_(w.group["lr"] * correction)
        if self.graphs:
            self._replay(work)
        else:
            for w in work:
                w.apply()
        for w in work:
            if (w.step + 1) % w.group["every"] == 0:
                average = _turn(w.stack.average, w.stack.bases, back=True)
                _follow(w.stack)
                w.stack.average.copy_(_turn(average, w.stack.bases))
            for p in w.parameters:
                self.state[p]["step"] = w.step + 1

    def _replay(self, work: "list[_Work]") -> None:
        """Apply updates as a CUDA graph, which is recorded the third time that the tensors are the same."""
        key = tuple(place for w in work for place in w.addresses())
        if self._graph is None or self._graph[0] != key:
            self._graph = key, 0, torch.cuda.CUDAGraph()
        _, seen, graph = self._graph
        if seen < 2:
            for w in work:
                w.apply()
        else:
            if seen == 2:
                with torch.cuda.graph(graph):
                    for w in work:
                        w.apply()
            graph.replay()
        self._graph = key, min(seen + 1, 3), graph


@dataclass
class _Work:
    """An update of parameters of one shape."""

    parameters: list[Tensor]
    stack: _Stack
    group: dict[str, Any]
    step: int

    def addresses(self) -> list[int]:
        """What a recorded update depends on."""
        gradients = [p.grad for p in self.parameters]
        return [t.data_ptr() for t in (self.stack.average, *self.parameters, *gradients) if t is not None]

    def apply(self) -> None:
        """Tensors alone: follow the moments and move the parameters."""
        state, group = self.stack, self.group
        first, second = group["betas"]
        g = torch.stack([p.grad.reshape(state.average.shape[1:]) for p in self.parameters])  # type: ignore[union-attr]
        turned = _turn(g, state.bases)
        state.average.lerp_(turned, 1 - first)
        state.square.lerp_(turned.square(), 1 - second)
        update = _turn(state.average / (state.square.sqrt() + group["eps"]), state.bases, back=True) * state.rate
        moves = [u.reshape(p.shape) for u, p in zip(update, self.parameters, strict=True)]
        torch._foreach_sub_(self.parameters, moves)
        _measure(state.moments, g, 1 - group["shampoo_beta"])


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
        if basis is None:
            g = g.movedim(1, -1)
        else:
            rest = g.shape[2:]
            g = (g.flatten(2).mT if rest else g[:, None]) @ (basis.mT if back else basis)
            g = g.reshape(len(g), *rest, basis.shape[-1])
    return g


def _measure(moments: list[Tensor | None], g: Tensor, rate: float) -> None:
    """Average the second moments of g along every axis."""
    for axis, moment in enumerate(moments, 1):
        if moment is not None:
            rows = g.movedim(axis, 1).flatten(2)
            moment.lerp_(rows @ rows.mT, rate)


def _follow(state: _Stack) -> None:
    """One step of orthogonal iteration for every basis, its vectors sorted by their eigenvalues."""
    for axis, (moment, basis) in enumerate(zip(state.moments, state.bases, strict=True), 1):
        if moment is None or basis is None:
            continue
        order = torch.argsort((basis * (moment @ basis)).sum(1), descending=True)
        place = order.reshape(len(order), *(-1 if a == axis else 1 for a in range(1, state.square.dim())))
        state.square.copy_(state.square.gather(axis, place.expand_as(state.square)))
        basis.copy_(torch.linalg.qr(moment @ basis.gather(2, order[:, None].expand_as(basis)))[0])
