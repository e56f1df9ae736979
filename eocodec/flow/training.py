"""Training a model: stages of likelihood and rate-distortion, checkpoints, log, validation.

In: a configuration (see `docs/TRAINING.md`) and pictures. Out: a run folder with `checkpoint.pt` (everything needed to
continue the same curve), `log.jsonl`, TensorBoard events and validation pictures. The curve depends on the
configuration alone: how many processes share a batch, into how many micro-batches they cut it, and whether the run was
interrupted, changes nothing but the order of float additions (the last not even that).
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from eocodec.errors import EocodecError
from eocodec.files import atomic_file, atomic_write
from eocodec.flow.configuration import TrainingConfig, load_config
from eocodec.flow.context import Steps
from eocodec.flow.distributed import Ranks, bfloat16_pays, pick_device
from eocodec.flow.graph import StepGraph
from eocodec.flow.loss import RATE_BINS, BatchLoss, rate_bin
from eocodec.flow.model import MODELS, build, kind_of
from eocodec.flow.pictures import Picture, greyed, read_pictures, split
from eocodec.flow.resuming import changes, digest_of, settings_of
from eocodec.flow.soap import Soap
from eocodec.flow.streams import AlignedStream, Prefetch, Stream, open_stream
from eocodec.flow.trainable import Draws, Stage
from eocodec.model.library import bundle_files

__all__ = [
    "Checkpoint",
    "Run",
    "Stage",
    "TrainingConfig",
    "load_checkpoint",
    "load_config",
    "load_start",
    "open_pictures",
    "pick_device",
]

ADAPT_EVERY = 5  # iterations between calls of a model's `adapt`
ADAPT_PICTURES = 16  # that it gets
SKIPPED = 10  # steps in a row without a finite gradient after which a run has diverged
VALIDATION_PIXELS = 1 << 20  # evaluated at once


Pictures = tuple[list[tuple[str, Picture]], list[tuple[str, Picture]]]


@dataclass
class Checkpoint:
    """What a checkpoint file holds; `kind` and `config` say which model `average` fits."""

    config: Any
    iteration: int
    average: dict[str, Tensor]
    raw: dict[str, Any]
    kind: str = "photo"


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a checkpoint (tensors and plain values only: `weights_only=True`).

    Raises:
        EocodecError: not a checkpoint of this program.
    """
    try:
        raw = torch.load(path, map_location=device, weights_only=True)
        kind = raw.get("model_kind", "photo")  # checkpoints without it are from before there were several kinds
        return Checkpoint(MODELS[kind][0](**raw["model_config"]), raw["iteration"], raw["average"], raw, kind)
    except FileNotFoundError as e:
        raise EocodecError(f"{path}: no such checkpoint") from e
    except (OSError, KeyError, TypeError, RuntimeError, EOFError, ValueError, AttributeError) as e:
        raise EocodecError(f"{path} is not an eocodec checkpoint") from e
    except Exception as e:  # pickle.UnpicklingError and zip errors differ between torch versions
        raise EocodecError(f"{path} is not an eocodec checkpoint ({type(e).__name__})") from e


def load_start(path: Path) -> Checkpoint:
    """What a new run starts from: a checkpoint, or the weights of a bundle (`.eocm`, photo models only).

    Raises:
        EocodecError: neither.
    """
    if path.suffix != ".eocm":
        return load_checkpoint(path)
    from eocodec.flow.restored import photo_weights  # needs onnx

    config, weights = photo_weights(bundle_files(path))
    return Checkpoint(config, 0, weights, {})


def open_pictures(config: TrainingConfig, given: Pictures | None = None) -> tuple[Stream, list[tuple[str, Picture]]]:
    """The stream of training pictures, at its start, and the held-out pictures with their names.

    Arguments:
        config: of the run.
        given: pictures to train on and to hold out, instead of those of the configuration.

    Raises:
        EocodecError: unreadable or missing pictures, or of the wrong size.
    """
    train, held_out = given or split(read_pictures(config.folder), config.hold_out, config.hold_out_by)
    if config.grey:
        train, held_out = ([(name, greyed(picture)) for name, picture in part] for part in (train, held_out))
    if not train:
        raise EocodecError(
            f"no picture is left to train on: hold_out = {config.hold_out} (by {config.hold_out_by}) takes "
            f"{len(held_out)} of {len(held_out)}; add pictures"
        )
    stream = open_stream(config.stream, train, config.crop, config.seed, config.rescale, config.jitter, config.turns)
    return stream, held_out


class Run:
    """A training run: `for record in run: ...` does one optimiser step per item and yields its figures.

    Arguments:
        config: of the run.
        device: where to compute.
        resume: continue from `out/checkpoint.pt`.
        start: checkpoint or bundle whose averaged weights are the starting point of a new run.
        ranks: the processes that share the run; only the first one writes files.
        report: called with one sentence about anything the user should know.
        pictures: to train on and to hold out, with their names, instead of those of the configuration.

    Raises:
        EocodecError: bad pictures or checkpoint, one of another run, or a batch that the processes cannot share evenly.
    """

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        resume: bool = False,
        start: Path | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008  (frozen)
        report: Callable[[str], None] = lambda message: None,
        pictures: Pictures | None = None,
    ) -> None:
        self.config, self.device, self.ranks = config, device, ranks
        parts = ranks.world * config.accumulate
        if config.batch % parts:
            raise EocodecError(
                f"batch = {config.batch} cannot be shared by {ranks.world} processes with accumulate = "
                f"{config.accumulate}; make it a multiple of {parts}"
            )
        self.share = config.batch // ranks.world
        if config.threads:
            torch.set_num_threads(config.threads)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # batches have one size
            torch.backends.cudnn.allow_tf32 = False  # what is kept out of autocast, such as the flow, needs float32
        torch.manual_seed(config.seed)
        self.random = torch.Generator().manual_seed(config.seed)
        self.model = build(config.model)
        if self.model.usable(config.crop, config.crop) != (config.crop, config.crop):
            usable = self.model.usable(config.crop, config.crop)[0]
            raise EocodecError(f"crop = {config.crop} is no size that the model takes; {usable} is")
        self.stream, held_out = open_pictures(config, pictures)
        self._digest = digest_of(self.stream.pictures)
        self.held_out = [(name, picture) for name, picture in held_out if self._takes(picture)]
        self.loader: Prefetch | None = None
        if isinstance(self.stream, AlignedStream) and not resume and start is None:
            whole = torch.from_numpy(self.stream.pictures).permute(0, 3, 1, 2)
            self.model.prepare(whole, torch.Generator().manual_seed(config.seed))
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        flow = [p for name, p in self.model.named_parameters() if name.startswith("flow.")]
        others = [p for name, p in self.model.named_parameters() if not name.startswith("flow.")]
        groups = [{"params": flow}, {"params": others}]
        self.graphs = config.graphs and device.type == "cuda" and ranks.world == 1 and config.accumulate == 1
        self.optimiser: torch.optim.Optimizer = (
            Soap(groups, eps=config.epsilon, graphs=self.graphs)
            if config.optimiser == "soap"
            else torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.99), eps=config.epsilon)
        )
        self._averaged: list[list[tuple[Tensor, Tensor]]] | None = None  # of reals and others: averages, values
        self._learns: list[bool] = []  # for what they were gathered
        self.iteration = 0
        self.running = torch.zeros(RATE_BINS)
        self.total = sum(s.iterations for s in config.stages)
        self.checkpoint = config.out / "checkpoint.pt"
        self.log = config.out / "log.jsonl"
        if start is not None:
            loaded = load_start(start)
            anew = self.model.start_from(loaded.config, loaded.average)
            if anew is None:
                raise _misfit(loaded, start, config)
            self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            if anew and ranks.main:
                nets = "net begins" if len(anew) == 1 else "nets begin"
                report(
                    f"{start}: its weights do not fit all sizes of the configuration; {nets} anew: {', '.join(anew)}"
                )
        if resume:
            self._restore(_fitting(load_checkpoint(self.checkpoint, device), self.checkpoint, config).raw, report)
        self.autocast = bfloat16_pays(device) if config.autocast == "auto" else config.autocast == "on"
        self.loss = BatchLoss(self.model, self.autocast, config.compile, report if ranks.main else lambda message: None)
        # The stages leave some parameters out: the likelihood knows no refinement.
        self.parallel = DistributedDataParallel(self.loss, find_unused_parameters=True) if ranks.world > 1 else None
        self._graph: tuple[Stage, StepGraph] | None = None
        self._skipped = 0  # steps in a row
        self._seen: tuple[Stage, Tensor, int] | None = None  # a picture of the last batch, with its stage and seed
        self._clock = _Clock()

    def _takes(self, picture: Picture) -> bool:
        try:
            return bool(self.model.usable(*picture.shape[:2]))
        except EocodecError:
            return False

    def _restore(self, raw: dict[str, Any], report: Callable[[str], None]) -> None:
        if "optimiser" not in raw:
            raise EocodecError(f"{self.checkpoint} holds weights only, which --start takes; there is no run to resume")
        for sentence in changes(self.checkpoint, raw, self.config, self._digest):
            if self.ranks.main:
                report(sentence)
        self.model.load_state_dict(raw["model"])
        self.average, self._averaged = raw["average"], None
        try:
            self.optimiser.load_state_dict(raw["optimiser"])
        except ValueError:
            raise EocodecError(
                f"{self.checkpoint} comes from an older version and cannot be resumed; begin a new run with --start"
            ) from None
        for group in self.optimiser.param_groups:
            group["eps"] = self.config.epsilon
        self.iteration = raw["iteration"]
        if raw["running"].shape == self.running.shape:  # older checkpoints kept it in other bins
            self.running = raw["running"].cpu()
        self.stream.restore(raw["stream"])
        self.random.set_state(raw["random"].cpu())

    def save(self) -> None:
        """Write the checkpoint atomically.

        Raises:
            EocodecError: the run has diverged; the checkpoint stays as it was.
        """
        if not self._is_finite():
            raise self._diverged("its weights, or the loss with them, are not finite")
        raw = {
            "model_kind": kind_of(self.config.model),
            "model_config": asdict(self.config.model),
            "seed": self.config.seed,
            "hold_out": self.config.hold_out,
            "hold_out_by": self.config.hold_out_by,
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "running": self.running,
            "stream": self.stream.state() if self.loader is None else self.loader.state,
            "random": self.random.get_state(),
            "settings": settings_of(self.config),
            "pictures": self._digest,
        }
        self.config.out.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.checkpoint) as file:
            torch.save(raw, file)

    @torch.no_grad()
    def _is_finite(self) -> bool:
        """Whether all weights and averages are finite, and what they make of a picture of the last batch."""
        states = (self.model.state_dict(), self.average)
        if not all(bool(torch.isfinite(v).all()) for state in states for v in state.values()):
            return False
        if self._seen is None:
            return True
        stage, x, seed = self._seen
        plain = BatchLoss(self.model, self.autocast, False, lambda message: None)
        return bool(torch.isfinite(plain(stage, x, self.running.to(self.device), seed, 0)[0]))

    def _diverged(self, sign: str) -> EocodecError:
        stage = self.stage()[0] if self._seen is None else self._seen[0]
        return EocodecError(
            f"the training diverged in iteration {self.iteration}: {sign}; lower learning_rate "
            f"({stage.learning_rate:g} in this stage)"
        )

    def describe(self) -> str:
        """One line: model, pictures, processes."""
        count = sum(p.numel() for p in self.model.parameters())
        precision = "bfloat16 autocast" if self.autocast else "float32"
        return (
            f"{kind_of(self.config.model)} model, {count / 1e6:.2f} M parameters; "
            f"{len(self.stream.pictures)} pictures, {len(self.held_out)} held out; "
            f"{self.ranks.world} x {self.device.type}, {precision}"
        )

    def replan(self, stages: tuple[Stage, ...]) -> None:
        """Go on by other stages from here on: to end in time, for instance. What is done already must not change."""
        self.config = replace(self.config, stages=stages)
        self.total = sum(s.iterations for s in stages)

    def stage(self) -> tuple[Stage, int]:
        """The current stage and how many of its iterations are done."""
        done = self.iteration
        for s in self.config.stages:
            if done < s.iterations:
                return s, done
            done -= s.iterations
        return self.config.stages[-1], self.config.stages[-1].iterations

    def __iter__(self) -> Iterator[dict[str, float]]:
        if not self.ranks.main:
            while self.iteration < self.total:
                yield self.advance()
            return
        self.config.out.mkdir(parents=True, exist_ok=True)
        _cut_log(self.log, self.iteration)
        saved = time.monotonic()
        board = _board(self.config.out, self.iteration)
        with open(self.log, "a", buffering=1) as log:
            while self.iteration < self.total:
                record = self.advance()
                print(json.dumps(record), file=log)
                if board is not None and self.iteration % 20 == 0:
                    for k, v in record.items():
                        board.add_scalar(k, v, self.iteration)
                if self._save_now(saved):
                    os.fsync(log.fileno())  # the log must reach at least as far as the checkpoint
                    self.save()
                    saved = time.monotonic()
                yield record

    def _save_now(self, saved: float) -> bool:
        every = self.config.checkpoint_every
        late = time.monotonic() - saved > self.config.checkpoint_minutes * 60
        return late or self.iteration == self.total or bool(every and self.iteration % every == 0)

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns its figures, means over the whole batch.

        Raises:
            EocodecError: the run has diverged.
        """
        stage, done = self.stage()
        rate = stage.final_rate + 0.5 * (stage.learning_rate - stage.final_rate) * (
            1 + math.cos(math.pi * done / stage.iterations)
        )
        rate *= min(1.0, (done + 1) / stage.warmup) if stage.warmup else 1.0
        for group, factor in zip(self.optimiser.param_groups, (stage.flow_rate, 1.0), strict=True):
            group["lr"] = rate * factor
        x = self._pictures()
        seed = int(torch.randint(2**62, (), generator=self.random))
        if self.graphs and stage.objective != "likelihood":
            figures, each = self._replay(stage, x, seed)
        else:
            self._graph = None
            self.optimiser.zero_grad(set_to_none=True)
            figures, each = self._backward(stage, x, seed)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._seen = stage, x[:1], seed
        self._skipped = 0 if torch.isfinite(norm) else self._skipped + 1
        if not math.isfinite(figures["loss"]) or self._skipped == SKIPPED:
            self.iteration += 1
            raise self._diverged("its loss or gradient is not finite")
        if not self._skipped:
            self.optimiser.step()
        self.iteration += 1
        self._update_average()
        if stage.objective in ("rate-distortion", "entropy", "refinement"):
            self._update_running(self.ranks.gather(each.T).T)
        follow = stage.objective in ("likelihood", "rate-distortion") and not stage.fixed_steps
        if self.iteration % ADAPT_EVERY == 0 and follow:
            first = self.ranks.gather(x[:ADAPT_PICTURES])[:ADAPT_PICTURES]
            with torch.no_grad():
                self.model.adapt(first.contiguous(memory_format=torch.channels_last), self.iteration // ADAPT_EVERY)
        self._clock.pictures += self.config.batch
        return {"iteration": self.iteration, "rate": rate, "loss": figures.pop("loss"), "norm": norm.item(), **figures}

    def _pictures(self) -> Tensor:
        """This process's share of the next batch, `(share, 3, S, S)` in [0, 1]."""
        if self.loader is None:
            self.loader = Prefetch(self.stream, self.config.batch, self.ranks.rank * self.share, self.share)
        batch = torch.from_numpy(self.loader.take())
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        x = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255.0
        return x.contiguous(memory_format=torch.channels_last)

    def _backward(self, stage: Stage, x: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
        """Gradients of the whole batch; its figures, and steps and losses `(2, share)` of this process's pictures."""
        parts = x.chunk(self.config.accumulate)
        expected = self.running.to(self.device)
        names: list[str] = []
        values, each = [], []
        for k, part in enumerate(parts):
            first = self.ranks.rank * self.share + k * len(part)
            last = k + 1 == len(parts)
            with nullcontext() if self.parallel is None or last else self.parallel.no_sync():
                loss, figures, pairs = (self.parallel or self.loss)(stage, part, expected, seed, first)
                (loss / len(parts)).backward()
            names = ["loss", *figures]
            values.append(torch.stack([loss.detach(), *(v.to(loss) for v in figures.values())]))
            each.append(pairs)
        means = self.ranks.mean(torch.stack(values).mean(0)).tolist()
        return dict(zip(names, means, strict=True)), torch.cat(each, 1)

    def _replay(self, stage: Stage, x: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
        """As :meth:`_backward`, by a graph that the first batch of the stage is recorded with."""
        drawn = self.loss.drawn(stage, x, Draws(seed, 0, len(x), x.device))
        expected = self.running.to(self.device)
        if self._graph is None or self._graph[0] is not stage:
            self._graph = None  # its memory is needed
            evaluate = partial(self.loss.evaluate, stage)
            self._graph = stage, StepGraph(evaluate, drawn, expected, list(self.model.parameters()))
        graph = self._graph[1]
        values, each = graph(drawn, expected)
        return dict(zip(["loss", *graph.names], values.tolist(), strict=True)), each

    def _update_running(self, each: Tensor) -> None:
        """Follow R + D / (w Δ²) near each step, so that every rate weighs alike; `each (2, batch)`."""
        step, loss = each.cpu()
        for k, v in zip(rate_bin(step).tolist(), loss.tolist(), strict=True):
            old = float(self.running[k])
            self.running[k] = v if old == 0 else 0.98 * old + 0.02 * v

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.iteration) / (10 + self.iteration))
        learns = [p.requires_grad for p in self.model.parameters()]  # may change on the way
        if self._averaged is None or self._learns != learns:
            self._learns = learns
            state = self.model.state_dict()
            frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
            pairs = [(self.average[k], state[k]) for k in self.average if k not in frozen]
            self._averaged = [[p for p in pairs if p[0].is_floating_point() == real] for real in (True, False)]
        real, others = self._averaged
        torch._foreach_lerp_([a for a, _ in real], [v for _, v in real], 1 - decay)
        for a, v in others:
            a.copy_(v)

    def speed(self) -> dict[str, float]:
        """Since the last call: pictures a second in training and (this process's share) out of the loader's thread
        alone, and the share of the time, 0 to 1, that training waited for it."""
        clock, self._clock = self._clock, _Clock()
        seconds = max(time.perf_counter() - clock.start, 1e-9)
        waited = busy = 0.0
        if self.loader is not None:
            waited, busy = self.loader.waited, self.loader.busy
            self.loader.waited = self.loader.busy = 0.0
        loaded = clock.pictures / self.ranks.world
        return {
            "pictures_per_second": clock.pictures / seconds,
            "loader_pictures_per_second": loaded / max(busy, 1e-9),
            "waiting": waited / seconds,
        }

    @torch.no_grad()
    def validate(
        self, steps: tuple[float, ...] = (8.0, 24.0, 48.0, 96.0), limit: int | None = None, write: bool = True
    ) -> dict[str, Any]:
        """Averaged weights on the held-out pictures: estimated bits per pixel and PSNR (dB) per step.

        Arguments:
            steps: Δ in 8-bit levels.
            limit: how many pictures to use, all by default.
            write: save the first picture at all steps as `validation<iteration>.png`.

        Raises:
            EocodecError: the run has diverged: figures are not finite.
        """
        model = build(self.config.model).to(self.device).eval()
        model.load_state_dict(self.average)
        stage = self.stage()[0]
        points: dict[str, Any] = {}
        shown: list[Tensor] = []
        for level in steps:
            rates, quality = [], []
            for x in self._validation_batches(limit):
                step = torch.full((len(x),), level / 255.0, device=self.device)
                y, bits, _ = model.rate_distortion(x / 255.0, Steps(step), stage.dead_zone, stage.quantised)
                mse = (torch.floor(y.clamp(0, 1) * 255.0 + 0.5) - x).square().mean((1, 2, 3))
                rates += (bits / (x.shape[2] * x.shape[3])).tolist()
                quality += (10 * torch.log10(255.0**2 / mse.clamp(min=1e-9))).tolist()
                if len(rates) == len(x):
                    shown.append(y[0].clamp(0, 1))
            points[f"{level:g}"] = (float(np.mean(rates)), float(np.mean(quality)))
            if not np.isfinite(points[f"{level:g}"]).all():
                raise self._diverged("its validation is not finite")
        if write:
            strip = torch.cat(shown, 2).permute(1, 2, 0).cpu().numpy()
            Image.fromarray((strip * 255 + 0.5).astype(np.uint8)).save(
                self.config.out / f"validation{self.iteration:07d}.png"
            )
        return {"points": points, "pictures": shown}

    def _validation_batches(self, limit: int | None) -> Iterator[Tensor]:
        """Held-out pictures `(B, 3, H, W)` in 8-bit levels, cut to sizes that the model takes."""
        waiting: list[Tensor] = []
        for _, picture in self.held_out[:limit]:
            height, width = self.model.usable(*picture.shape[:2])
            x = torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1).float()
            if waiting and (waiting[0].shape != x.shape or (len(waiting) + 1) * height * width > VALIDATION_PIXELS):
                yield torch.stack(waiting).to(self.device)
                waiting = []
            waiting.append(x)
        yield torch.stack(waiting).to(self.device)


class _Clock:
    """When a stretch of training began and how many pictures it has used."""

    def __init__(self) -> None:
        self.start, self.pictures = time.perf_counter(), 0


def _fitting(loaded: Checkpoint, path: Path, config: TrainingConfig) -> Checkpoint:
    """The checkpoint, if its model is the configured one."""
    if loaded.config != config.model:
        raise _misfit(loaded, path, config)
    return loaded


def _misfit(loaded: Checkpoint, path: Path, config: TrainingConfig) -> EocodecError:
    kind = kind_of(config.model)
    if loaded.kind != kind:
        return EocodecError(f"{path} holds a model {loaded.kind}, not the configured {kind}")
    have, want = asdict(loaded.config), asdict(config.model)
    other = ", ".join(f"{k} = {have.get(k)!r} and not {v!r}" for k, v in want.items() if have.get(k) != v)
    return EocodecError(f"{path} holds a model {kind} that is not the configured one: {other}")


def _cut_log(path: Path, iteration: int) -> None:
    """Drop the lines after `iteration`, which will be written again, and one that was not written to its end."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["iteration"] <= iteration:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    atomic_write(path, "".join(kept).encode())


def _board(folder: Path, iteration: int) -> Any:
    """A TensorBoard writer that forgets what came after `iteration`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=iteration + 1)  # type: ignore[no-untyped-call]
