"""What eocodec finds on this machine, and what makes it slow here.

In: nothing but the machine. Out: a :class:`Diagnosis`: versions, providers, cores, models, and findings with remedies.
"""

import contextlib
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import eocodec
from eocodec.cores import cores, throttled
from eocodec.errors import EocodecError
from eocodec.model.bundle import peek_id
from eocodec.model.library import DEFAULT, installed_models, load_model, shipped_models
from eocodec.model.runtime import CUDA, GPU_INSTALLATION, onnxruntime

__all__ = ["Diagnosis", "Finding", "diagnose"]

PACKAGES = ("click", "constriction", "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "platformdirs", "torch",
            "zstandard")  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd")
THROTTLED = 0.05  # share of the scheduler's periods from which on it is worth a word
BUSY = 1.25  # processes that want a core, for each core, likewise
SLOWER_ALONE = 2.0  # wall time over processor time of one thread from which on others take the core


@dataclass(frozen=True)
class Finding:
    """Something that is wrong or slow: what, why, and what helps."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found; the fields are the keys of the JSON output.

    Arguments:
        versions: of eocodec, Python, the system and the packages it uses; packages that are not installed are left out.
        providers: where ONNX Runtime can run graphs.
        gpus: NVIDIA devices that the driver or torch knows.
        cores: `usable` by this process, `machine` in all, `bound` that it is bound to, `load` average of a minute,
            `throttled` share of the scheduler's periods in which the quota of its control groups ran out, or None.
        flags: of the processor, those that matter for speed.
        models: name, id, bytes and path of each installed model, or an error.
        speed: seconds for a sample picture, and what was measured; None if it was not to be measured.
        findings: what is wrong or slow.
    """

    versions: dict[str, str]
    providers: list[str]
    gpus: list[str]
    cores: dict[str, Any]
    flags: list[str]
    models: list[dict[str, Any]]
    speed: dict[str, float] | None
    findings: list[Finding] = field(default_factory=list)


def diagnose(measure: bool = True) -> Diagnosis:
    """Look at the machine.

    Arguments:
        measure: also code a sample picture, a second or two.
    """
    versions = _versions()
    providers = list(onnxruntime().get_available_providers())
    gpus = _gpus()
    counted = _cores()
    models = list(_models())
    speed = _speed() if measure else None
    found = [
        *_about_builds(versions),
        *_about_gpus(versions, providers, gpus),
        *_about_cores(counted),
        *_about_models(models),
        *_about_speed(speed),
    ]
    return Diagnosis(versions, providers, gpus, counted, _flags(), models, speed, found)


def _versions() -> dict[str, str]:
    result = {"eocodec": eocodec.__version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            result[package] = metadata.version(package)
    return result


def _gpus(driver: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Names of NVIDIA devices, by what the driver for Linux says; elsewhere by torch, if something has imported it."""
    names = []
    for entry in sorted(driver.glob("*/information")):
        with contextlib.suppress(OSError):
            for line in entry.read_text().splitlines():
                if line.startswith("Model:"):
                    names.append(line.partition(":")[2].strip())
    torch = sys.modules.get("torch")
    if not names and torch is not None and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return names


def _cores() -> dict[str, Any]:
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"usable": cores(), "machine": os.cpu_count(), "bound": bound, "load": load, "throttled": throttled()}


def _flags(file: Path = Path("/proc/cpuinfo")) -> list[str]:
    try:
        words = set(file.read_text().split())
    except OSError:
        return []
    return [f for f in FLAGS if f in words]


def _models() -> Iterator[dict[str, Any]]:
    for name, path in installed_models().items():
        row: dict[str, Any] = {"name": name, "id": peek_id(path).hex()[:8], "path": str(path)}
        try:
            model = load_model(path, 1, device="cpu")
            yield {**row, "id": model.id.hex(), "bytes": path.stat().st_size, "shipped": name in shipped_models()}
        except (EocodecError, OSError) as e:
            yield {**row, "error": str(e)}


def _speed() -> dict[str, float]:
    """Seconds that coding and decoding a sample picture take, sessions open, and those of the processor in them."""
    from eocodec.codec import compress, decompress
    from eocodec.image import read_picture

    picture = read_picture(Path(__file__).parent / "data" / "chelsea.png").rgb
    model = load_model(DEFAULT)
    decompress(compress(picture[:64, :64], model=model), model)
    start, used = time.perf_counter(), time.process_time()
    data = compress(picture, model=model)
    middle = time.perf_counter()
    decompress(data, model)
    end = time.perf_counter()
    return {
        "megapixels": picture.shape[0] * picture.shape[1] / 1e6,
        "compress_seconds": middle - start,
        "decompress_seconds": end - middle,
        "processor_seconds": time.process_time() - used,
    }


def _about_builds(versions: dict[str, str]) -> Iterator[Finding]:
    if sysconfig.get_config_var("Py_DEBUG"):
        yield Finding("this Python is a debug build, several times slower", "use a release build of Python")
    torch = sys.modules.get("torch")
    if torch is not None and getattr(torch.version, "debug", False):
        yield Finding("this torch is a debug build", "install a release build of torch")
    if sys.gettrace() is not None:
        yield Finding("a tracer or debugger watches this process", "run without it")


def _about_gpus(versions: dict[str, str], providers: list[str], gpus: list[str]) -> Iterator[Finding]:
    both = "onnxruntime" in versions and "onnxruntime-gpu" in versions
    if both and CUDA not in providers:
        yield Finding(
            "onnxruntime and onnxruntime-gpu are both installed, and the one without CUDA hides the other",
            GPU_INSTALLATION,
        )
    elif both:
        yield Finding(
            "onnxruntime and onnxruntime-gpu are both installed; the next update may hide the one with CUDA",
            "pip uninstall onnxruntime, and then: " + GPU_INSTALLATION,
        )
    elif gpus and CUDA not in providers:
        yield Finding(
            f"there is a GPU ({gpus[0]}), but ONNX Runtime was built without CUDA: the CPU does its work",
            GPU_INSTALLATION,
        )


def _about_cores(counted: dict[str, Any]) -> Iterator[Finding]:
    usable, machine, load, share = (counted[k] for k in ("usable", "machine", "load", "throttled"))
    if machine and usable < machine:
        yield Finding(
            f"this process may use {usable} of the machine's {machine} cores",
            "raise the container's limit or the affinity if more are wanted",
        )
    if share is not None and share > THROTTLED:
        yield Finding(
            f"the quota of processor time ran out in {share:.0%} of the scheduler's periods so far",
            "raise the container's cpu limit, or use fewer --threads",
        )
    if load is not None and load > BUSY * usable:
        yield Finding(
            f"{load:.1f} processes want a core on average, and there are {usable}: others take part of the time",
            "wait for them, or move them elsewhere",
        )


def _about_models(models: list[dict[str, Any]]) -> Iterator[Finding]:
    for row in models:
        if "error" in row:
            yield Finding(f"the model {row['name']} cannot be used: {row['error']}", "add its base, or remove it")


def _about_speed(speed: dict[str, float] | None) -> Iterator[Finding]:
    if speed is None:
        return
    wall = speed["compress_seconds"] + speed["decompress_seconds"]
    if wall > SLOWER_ALONE * speed["processor_seconds"]:
        yield Finding(
            f"coding a sample picture took {wall:.2f} s, in which this process had a core for only "
            f"{speed['processor_seconds']:.2f} s",
            "measure again when nothing else runs",
        )
