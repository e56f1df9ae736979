"""The configuration of a training run: what a TOML file may say (`docs/TRAINING.md`), checked and with defaults.

In: a TOML file. Out: a frozen :class:`TrainingConfig`.
"""

import math
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from eocodec.errors import EocodecError
from eocodec.flow.model import MODELS, PhotoConfig
from eocodec.flow.pictures import HOLD_OUT_BY
from eocodec.flow.streams import STREAMS, TURNS
from eocodec.flow.trainable import Stage

__all__ = ["TrainingConfig", "load_config"]

OBJECTIVES = ("likelihood", "rate-distortion", "entropy", "refinement", "embedded", "denoising", "noise-level")
AUTOCAST = ("auto", "on", "off")
OPTIMISERS = ("adam", "soap")
LARGEST = 2**63 - 1  # of whole numbers: what torch takes as a seed


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run; the field names are the keys of the TOML file.

    Arguments:
        out: folder of the run.
        folder: the pictures, see :func:`eocodec.flow.pictures.read_pictures`.
        stages: stretches of training, one after another.
        model: sizes of the nets, one of the dataclasses in `eocodec.flow.model.MODELS`.
        batch: pictures of an optimiser step, over all processes and micro-batches.
        optimiser: "adam" or "soap" (`eocodec.flow.soap`).
        epsilon: the optimiser's ε. Gradients below it, such as those that are only rounding errors, move nothing.
        accumulate: micro-batches that a process's part of the batch is cut into.
        grey: whether pictures lose their colour.
    """

    out: Path
    folder: Path
    stages: tuple[Stage, ...]
    model: Any = field(default_factory=PhotoConfig)
    seed: int = 1
    stream: str = "crops"
    crop: int = 96
    batch: int = 8
    accumulate: int = 1
    rescale: float = 0.5
    turns: str = "all"
    grey: bool = False
    jitter: float = 0.0
    hold_out: int = 40
    hold_out_by: str = "picture"
    threads: int = 0
    compile: bool = False
    average: float = 0.999
    optimiser: str = "adam"
    epsilon: float = 1e-8
    checkpoint_minutes: float = 5.0
    checkpoint_every: int = 0
    validate_every: int = 1000
    graphs: bool = True  # on one GPU, record a step's kernels once and replay them
    autocast: str = "auto"  # "auto": bfloat16 on GPUs and on CPUs that have it; "off"; "on"


def load_config(path: Path, folder: Path | str | None = None, out: Path | None = None) -> TrainingConfig:
    """Read a training configuration; paths in it are relative to the file.

    Arguments:
        path: the TOML file.
        folder, out: instead of the file's `folder` and `out`.

    Raises:
        EocodecError: unreadable file, unknown key or impossible value, named in the message.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise EocodecError(f"cannot read the training configuration {path}: {e}") from e
    base = Path(path).resolve().parent
    places: dict[str, Path] = {}
    for key, given in (("folder", folder), ("out", out)):
        value = table.pop(key, None)
        if given is None and not isinstance(value, str):
            raise EocodecError(f"{path}: the key {key} is missing")
        places[key] = base / str(value) if given is None else Path(given)
    sections, sizes = table.pop("stage", []), table.pop("model", {})
    if not isinstance(sections, list) or not sections or not isinstance(sizes, dict):
        raise EocodecError(f"{path}: at least one [[stage]] is needed, and at most one [model]")
    kind = sizes.pop("kind", "photo")
    if kind not in MODELS:
        raise EocodecError(f"{path}: [model] kind = {kind!r} is unknown; there are: {', '.join(MODELS)}")
    model = _fill(path, "[model]", MODELS[kind][0], sizes)
    stages = tuple(_fill(path, "[[stage]]", Stage, section) for section in sections)
    config: TrainingConfig = _fill(path, "", TrainingConfig, table, stages=stages, model=model, **places)
    _check(path, config)
    return config


def _fill(path: Path, section: str, kind: type[Any], table: dict[str, Any], **more: Any) -> Any:
    """An instance of a dataclass from a TOML table; names and types are checked against its defaults."""
    known = {f.name: f for f in fields(kind) if f.name not in more}
    where = f" in {section}" if section else ""
    for key, value in table.items():
        if key not in known:
            raise EocodecError(f"{path}: the key {key}{where} is unknown; there are: {', '.join(known)}")
        wanted = known[key].type if known[key].default is MISSING else type(known[key].default)
        name = getattr(wanted, "__name__", str(wanted))
        if name == "tuple" or name.startswith("tuple["):
            default = known[key].default
            length = None if default is MISSING or Ellipsis in get_args(known[key].type) else len(default)
            numbers = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
            if not numbers or (length is not None and len(value) != length):
                raise EocodecError(f"{path}: {key}{where} must be a list of {length or 'some'} numbers")
            table = {**table, key: tuple(value)}
        elif name != type(value).__name__ and not (name == "float" and type(value) is int):
            raise EocodecError(f"{path}: {key}{where} must be of type {name}, not {value!r}")
    for key, entry in known.items():
        if entry.default is MISSING and entry.default_factory is MISSING and key not in table:
            raise EocodecError(f"{path}: the key {key}{where} is missing")
    return kind(**table, **more)


def _check(path: Path, config: TrainingConfig) -> None:
    choices = {
        "stream": STREAMS,
        "turns": tuple(TURNS),
        "hold_out_by": HOLD_OUT_BY,
        "autocast": AUTOCAST,
        "optimiser": OPTIMISERS,
    }
    for key, allowed in choices.items():
        if getattr(config, key) not in allowed:
            raise EocodecError(f"{path}: {key} must be one of {', '.join(allowed)}, not {getattr(config, key)!r}")
    for key in ("crop", "batch", "accumulate", "validate_every"):
        if getattr(config, key) < 1:
            raise EocodecError(f"{path}: {key} must be at least 1")
    if getattr(config.model, "axes", 3) == 1 and not config.grey:
        raise EocodecError(f"{path}: a model with axes = 1 is for grey pictures; it needs grey = true")
    if config.hold_out < 2:
        raise EocodecError(f"{path}: hold_out must be at least 2")
    if config.batch % config.accumulate:
        raise EocodecError(f"{path}: accumulate = {config.accumulate} does not divide batch = {config.batch}")
    for s in config.stages:
        if s.objective not in OBJECTIVES or s.iterations < 1:
            raise EocodecError(f"{path}: a stage needs objective = {' | '.join(OBJECTIVES)} and iterations >= 1")
        if not 0 < s.step[0] <= s.step[1]:
            raise EocodecError(f"{path}: the step of a stage must be [low, high] with 0 < low <= high")
        if not s.weight > 0:
            raise EocodecError(f"{path}: the weight of a stage must be above 0")
    for where, part in (("", config), (" in [model]", config.model), *((" in [[stage]]", s) for s in config.stages)):
        _check_numbers(path, where, part, config.model)
    if not config.average < 1:
        raise EocodecError(f"{path}: average must be below 1, not {config.average:g}")
    most = config.crop.bit_length() - 2  # 2^(levels + 1) divides the crop
    if getattr(config.model, "levels", 1) > most:
        raise EocodecError(f"{path}: levels in [model] must be at most {most} for crop = {config.crop}")


def _check_numbers(path: Path, where: str, part: Any, model: Any) -> None:
    """See that numbers are finite and not negative, and a model's sizes whose default is at least 1 are so, too."""
    for f in fields(part):
        value = getattr(part, f.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            size = part is model and type(number) is int and type(f.default) is int and f.default > 0
            least = 1 if size else 0
            if isinstance(number, int) and number > LARGEST:
                raise EocodecError(f"{path}: {f.name}{where} must be at most 2^63 - 1")
            if not (math.isfinite(number) and number >= least):
                raise EocodecError(f"{path}: {f.name}{where} must be a finite number of at least {least}, not {number}")
