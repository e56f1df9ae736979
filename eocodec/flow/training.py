"""Training a photo model from a TOML file: stages of likelihood and rate-distortion, checkpoints, validation.

In: a configuration (see `docs/TRAINING.md`) and a folder of pictures. Out: a run folder with `checkpoint.pt`
(everything needed to continue the same curve), `log.jsonl`, TensorBoard events and validation pictures.
"""

import json
import math
import os
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eocodec.errors import EocodecError
from eocodec.flow.context import round_through
from eocodec.flow.model import PhotoConfig, PhotoModel
from eocodec.flow.objective import LAGRANGE, log_column_norms, total_correlation
from eocodec.flow.photo import log2_step_level
from eocodec.flow.pictures import CropStream, read_folder, split

__all__ = ["Checkpoint", "Run", "Stage", "TrainingConfig", "load_checkpoint", "load_config", "pick_device"]

ADAPT_EVERY = 5  # iterations between measurements of a column norm
ADAPT_RATE = 0.3
RATE_BINS = 24  # bins of log2 Δ in which the running loss is kept, to weigh all rates alike


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Arguments:
        objective: "likelihood" (NLL + λ·I) or "rate-distortion" (R + D / (0.17 Δ²)).
        iterations: optimiser steps.
        learning_rate: at the start; falls to `final_rate` as a half cosine.
        step: range of Δ in 8-bit levels, drawn log-uniformly for every picture.
        noise: σ_a of the noise augmentation in 8-bit levels (likelihood only).
        correlation: λ, the weight of the manifold total correlation.
        quantised: round weights and activations of the entropy model as the exported graphs do.
        dead_zone: weight of the rate in the rounding decision, squared steps per bit.
    """

    objective: str
    iterations: int
    learning_rate: float = 1e-3
    final_rate: float = 1e-3
    warmup: int = 100
    step: tuple[float, float] = (2.0, 200.0)
    noise: float = 0.0
    correlation: float = 0.0
    quantised: bool = False
    dead_zone: float = LAGRANGE


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run; the field names are the keys of the TOML file."""

    out: Path
    folder: Path
    stages: tuple[Stage, ...]
    model: PhotoConfig = field(default_factory=PhotoConfig)
    seed: int = 1
    crop: int = 96
    batch: int = 8
    rescale: float = 0.5
    hold_out: int = 40
    threads: int = 0
    average: float = 0.999
    checkpoint_minutes: float = 5.0
    validate_every: int = 1000
    autocast: str = "auto"  # "auto": bfloat16 on GPUs and on CPUs that have it; "off"; "on"


@dataclass
class Checkpoint:
    """What a checkpoint file holds."""

    config: PhotoConfig
    iteration: int
    average: dict[str, Tensor]
    raw: dict[str, Any]


def load_config(path: Path, folder: Path | None = None, out: Path | None = None) -> TrainingConfig:
    """Read a training configuration; paths in it are relative to the file.

    Arguments:
        path: the TOML file.
        folder, out: instead of the file's `folder` and `out`.

    Raises:
        EocodecError: unreadable file, unknown key or impossible value, named in the message.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise EocodecError(f"cannot read the training configuration {path}: {e}") from e
    base = Path(path).resolve().parent
    try:
        stages = tuple(Stage(**{**s, "step": tuple(s.get("step", (2.0, 200.0)))}) for s in table.pop("stage", []))
        model = PhotoConfig(**table.pop("model", {}))
        places = {k: base / table.pop(k) for k in ("out", "folder") if k in table}
        out, folder = out or places["out"], folder or places["folder"]
        config = TrainingConfig(out=out, folder=folder, stages=stages, model=model, **table)
    except KeyError as e:
        raise EocodecError(f"{path}: the key {e} is missing") from e
    except TypeError as e:
        raise EocodecError(f"{path}: {e}") from e
    if not stages:
        raise EocodecError(f"{path}: at least one [[stage]] is needed")
    for s in stages:
        if s.objective not in ("likelihood", "rate-distortion") or s.iterations < 1:
            raise EocodecError(f"{path}: a stage needs objective = likelihood | rate-distortion and iterations >= 1")
    if config.crop % 32 or config.crop < 32:
        raise EocodecError(f"{path}: crop must be a multiple of 32")
    return config


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one.

    Raises:
        EocodecError: `cuda` was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise EocodecError("no CUDA device is available here; use --device cpu")
    return torch.device(name)


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a checkpoint (tensors and plain values only: `weights_only=True`).

    Raises:
        EocodecError: not a checkpoint of this program.
    """
    try:
        raw = torch.load(path, map_location=device, weights_only=True)
        return Checkpoint(PhotoConfig(**raw["model_config"]), raw["iteration"], raw["average"], raw)
    except (OSError, KeyError, TypeError, RuntimeError, EOFError, ValueError) as e:
        raise EocodecError(f"{path} is not an eocodec checkpoint") from e
    except Exception as e:  # pickle.UnpicklingError and zip errors differ between torch versions
        raise EocodecError(f"{path} is not an eocodec checkpoint ({type(e).__name__})") from e


class Run:
    """A training run: `for record in run: ...` does one optimiser step per item and yields its figures.

    Arguments:
        config: of the run.
        device: where to compute.
        resume: continue from `out/checkpoint.pt`.
        start: checkpoint whose averaged weights are the starting point of a new run.
    """

    def __init__(
        self, config: TrainingConfig, device: torch.device, resume: bool = False, start: Path | None = None
    ) -> None:
        self.config, self.device = config, device
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.random = torch.Generator().manual_seed(config.seed)
        try:
            pictures = read_folder(config.folder)
        except (OSError, ValueError) as e:
            raise EocodecError(str(e)) from None
        train, self.held_out = split(pictures, config.hold_out)
        self.stream = CropStream([p for _, p in train], config.crop, config.seed, config.rescale)
        self.model = PhotoModel(config.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, betas=(0.9, 0.99))
        self.iteration = 0
        self.running = torch.zeros(RATE_BINS)
        self.total = sum(s.iterations for s in config.stages)
        config.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = config.out / "checkpoint.pt"
        if start is not None:
            self.model.load_state_dict(load_checkpoint(start).average)
            self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if resume:
            self._restore(load_checkpoint(self.checkpoint, device).raw)
        auto = device.type == "cuda" or (torch.backends.mkldnn.is_available() and _cpu_has_bfloat16())
        self.autocast = auto if config.autocast == "auto" else config.autocast == "on"

    def _restore(self, raw: dict[str, Any]) -> None:
        self.model.load_state_dict(raw["model"])
        self.average = raw["average"]
        self.optimiser.load_state_dict(raw["optimiser"])
        self.iteration = raw["iteration"]
        self.running = raw["running"].cpu()
        self.stream.restore(raw["stream"])
        self.random.set_state(raw["random"].cpu())

    def save(self) -> None:
        """Write the checkpoint atomically."""
        raw = {
            "model_config": asdict(self.config.model),
            "seed": self.config.seed,
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "running": self.running,
            "stream": self.stream.state(),
            "random": self.random.get_state(),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(raw, partial)
        os.replace(partial, self.checkpoint)

    def stage(self) -> tuple[Stage, int]:
        """The current stage and how many of its iterations are done."""
        done = self.iteration
        for s in self.config.stages:
            if done < s.iterations:
                return s, done
            done -= s.iterations
        return self.config.stages[-1], self.config.stages[-1].iterations

    def __iter__(self) -> Iterator[dict[str, float]]:
        saved = time.monotonic()
        board = _board(self.config.out)
        with open(self.config.out / "log.jsonl", "a") as log:
            while self.iteration < self.total:
                record = self.advance()
                print(json.dumps(record), file=log, flush=self.iteration % 50 == 0)
                if board is not None and self.iteration % 20 == 0:
                    for k, v in record.items():
                        board.add_scalar(k, v, self.iteration)
                if time.monotonic() - saved > self.config.checkpoint_minutes * 60 or self.iteration == self.total:
                    self.save()
                    saved = time.monotonic()
                yield record

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns its figures."""
        stage, done = self.stage()
        rate = stage.final_rate + 0.5 * (stage.learning_rate - stage.final_rate) * (
            1 + math.cos(math.pi * done / stage.iterations)
        )
        rate *= min(1.0, (done + 1) / stage.warmup) if stage.warmup else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        x = torch.from_numpy(self.stream.batch(self.config.batch)).permute(0, 3, 1, 2).to(self.device)
        x = (x.float() / 255.0).contiguous(memory_format=torch.channels_last)
        low, high = (math.log(s / 255.0) for s in stage.step)
        step = torch.exp(low + (high - low) * torch.rand(len(x), generator=self.random)).to(self.device)
        self.optimiser.zero_grad(set_to_none=True)
        if stage.objective == "likelihood":
            loss, figures = self._likelihood(x, step, stage)
        else:
            loss, figures = self._rate_distortion(x, step, stage)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.iteration += 1
        self._update_average()
        if self.iteration % ADAPT_EVERY == 0:
            self._adapt(x)
        return {"iteration": self.iteration, "rate": rate, "loss": loss.item(), "norm": norm.item(), **figures}

    def _likelihood(self, x: Tensor, step: Tensor, stage: Stage) -> tuple[Tensor, dict[str, float]]:
        noise = torch.randn(x.shape, generator=self.random).to(self.device)
        x = x + noise * (stage.noise / 255.0)
        dims = x[0].numel()
        with self._casting():
            h = self.model.flow(x)
            coded = self.model.latents(h, step, log2_step_level(step), stage.dead_zone, stage.quantised)
        nll = coded.nll.mean() / dims
        loss, correlation = nll, torch.zeros(())
        if stage.correlation:
            correlation = total_correlation(self.model.flow.inverse, [b.float() for b in h], self.random)
            loss = nll + stage.correlation * correlation
        bits_per_dim = nll.item() / math.log(2) + math.log2(255.0)
        return loss, {"bits_per_dim": bits_per_dim, "total_correlation": correlation.item()}

    def _rate_distortion(self, x: Tensor, step: Tensor, stage: Stage) -> tuple[Tensor, dict[str, float]]:
        with self._casting():
            y, coded = self.model(x, step, stage.dead_zone, stage.quantised)
        distortion = (y.float() - x).square().mean((1, 2, 3))
        bits = coded.bits / x[0].numel()
        each = bits + distortion / (LAGRANGE * step.square())
        loss = (each / self._expected(step, each.detach())).mean()
        return loss, {
            "bits_per_pixel": 3 * bits.mean().item(),
            "mse": distortion.mean().item(),
            "lagrangian": each.mean().item(),
        }

    def _expected(self, step: Tensor, each: Tensor) -> Tensor:
        """Running mean of the loss near each step, so that every rate weighs alike."""
        place = ((log2_step_level(step) + 5) / 8 * (RATE_BINS - 1)).round().long().cpu()
        for k, v in zip(place.tolist(), each.cpu().tolist(), strict=True):
            old = float(self.running[k])
            self.running[k] = v if old == 0 else 0.98 * old + 0.02 * v
        return self.running[place].to(each.device).clamp(min=0.01)

    @torch.no_grad()
    def _adapt(self, x: Tensor) -> None:
        """Measure the column norm of one band and channel, in turn, and let the steps follow it."""
        k = self.iteration // ADAPT_EVERY * 17 % (3 + 9 * self.config.model.levels)  # 17 is coprime to 39: all in turn
        band, channel = (0, k) if k < 3 else (1 + (k - 3) // 9, (k - 3) % 9)
        h = self.model.flow(x[:4])
        norm = log_column_norms(self.model.flow.inverse, h, band, channel, self.config.crop // 2).mean()
        self.model.latents.adapt(band, channel, float(norm), ADAPT_RATE)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.iteration) / (10 + self.iteration))
        state = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [state[k] for k in self.average], 1 - decay)

    @contextmanager
    def _casting(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            yield

    @torch.no_grad()
    def validate(self, steps: tuple[float, ...] = (8.0, 24.0, 48.0, 96.0)) -> dict[str, Any]:
        """Averaged weights on the held-out pictures (centre crops): estimated bits per pixel and PSNR per step."""
        model = PhotoModel(self.config.model).to(self.device).eval()
        model.load_state_dict(self.average)
        points: dict[str, Any] = {}
        shown: list[Tensor] = []
        for level in steps:
            rates, quality = [], []
            for _, picture in self.held_out:
                height, width = (n // 32 * 32 for n in picture.shape[:2])
                x = torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1)[None].to(self.device).float()
                step = torch.full((1,), level / 255.0, device=self.device)
                y, coded = model(x / 255.0, step, self.stage()[0].dead_zone, self.stage()[0].quantised)
                mse = (round_through(y.clamp(0, 1) * 255.0) - x).square().mean().item()
                rates.append(coded.bits.item() / (height * width))
                quality.append(10 * math.log10(255.0**2 / max(mse, 1e-9)))
                if len(rates) == 1:
                    shown.append(y[0].clamp(0, 1))
            points[f"{level:g}"] = (float(np.mean(rates)), float(np.mean(quality)))
        strip = torch.cat(shown, 2).permute(1, 2, 0).cpu().numpy()
        Image.fromarray((strip * 255 + 0.5).astype(np.uint8)).save(
            self.config.out / f"validation{self.iteration:07d}.png"
        )
        return {"points": points, "pictures": shown}


def _board(folder: Path) -> Any:
    """A TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))  # type: ignore[no-untyped-call]


def _cpu_has_bfloat16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
