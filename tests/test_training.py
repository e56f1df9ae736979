"""Training: the same curve whatever the number of processes, micro-batches and interruptions; data; configuration."""

import functools
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT, SAMPLES, Runner, environment, wait_until
from PIL import Image

torch = pytest.importorskip("torch")

from eocodec_export import mean  # noqa: E402
from torch.distributed.run import get_args_parser  # noqa: E402

from eocodec.errors import EocodecError  # noqa: E402
from eocodec.files import lock_folder  # noqa: E402
from eocodec.flow import loss as batch_loss  # noqa: E402
from eocodec.flow.context import Steps  # noqa: E402
from eocodec.flow.loss import RATE_BINS, BatchLoss  # noqa: E402
from eocodec.flow.model import MODELS, PhotoConfig, PhotoModel  # noqa: E402
from eocodec.flow.pictures import read_pictures, split  # noqa: E402
from eocodec.flow.shards import expand  # noqa: E402
from eocodec.flow.streams import AlignedStream, CropStream, Prefetch  # noqa: E402
from eocodec.flow.trainable import Draws, Stage, Trainable  # noqa: E402
from eocodec.flow.training import Run, TrainingConfig, load_checkpoint, load_config  # noqa: E402

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
# With Adam's usual epsilon, gradients that are zero but for rounding move weights by whole learning rates.
STEADY = "epsilon = 1e-5"
TOLERANCE = 1e-4
TINY = """
out = "run"
folder = "pictures"
crop = 32
batch = 4
hold_out = 3
threads = 1
autocast = "off"
checkpoint_minutes = 1000
{keys}
[model]
levels = 2
width = 8
steps = 1
features = 8
context_width = 8
refine_width = 8
refine_depth = 3
[[stage]]
objective = "likelihood"
iterations = {first}
warmup = 4
learning_rate = 2e-4
final_rate = 2e-4
step = [2, 8]
noise = 2.0
correlation = 0.2
[[stage]]
objective = "rate-distortion"
iterations = {second}
warmup = 4
learning_rate = 2e-4
final_rate = 2e-4
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos of 96x80 pixels, in two folders."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    for k, path in enumerate(sorted(SAMPLES.glob("*.png"))[:3]):
        photo = Image.open(path).convert("RGB")
        for n in range(3):
            place = folder / f"set{k}" / f"{path.stem}_{n:04d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((40 * n, 60, 40 * n + 96, 140)).save(place)
    return folder


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Runs set the number of threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_config(folder: Path, keys: str = "", first: int = 6, second: int = 7) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(TINY.format(keys=keys, first=first, second=second))
    return path


def configure(folder: Path, pictures: Path, keys: str = "", first: int = 6, second: int = 7) -> TrainingConfig:
    return load_config(write_config(folder, keys, first, second), pictures)


def logged(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def largest_difference(a: list[dict[str, float]], b: list[dict[str, float]], key: str = "loss") -> float:
    assert [r["iteration"] for r in a] == [r["iteration"] for r in b]
    return max(abs(p[key] - q[key]) / max(abs(p[key]), 0.1) for p, q in zip(a, b, strict=True))


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def faces(folder: Path, names: list[str], size: int = 32) -> Path:
    folder.mkdir()
    photo = Image.open(SAMPLES / "astronaut.png").convert("RGB")
    for k, name in enumerate(names):
        photo.crop((9 * k, 5 * k, 9 * k + size, 5 * k + size)).save(folder / f"{name}.png")
    return folder


# The curve


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> list[dict[str, float]]:
    """The tiny run in one process, one micro-batch."""
    return list(Run(configure(tmp_path_factory.mktemp("one"), pictures, STEADY), CPU))


def test_the_curve_of_the_tiny_run_falls(curve: list[dict[str, float]]) -> None:
    assert len(curve) == 13 and all(math.isfinite(v) for r in curve for v in r.values())
    assert curve[5]["bits_per_dim"] < curve[0]["bits_per_dim"]


def test_accumulating_micro_batches_gives_the_same_curve(
    tmp_path: Path, pictures: Path, curve: list[dict[str, float]]
) -> None:
    halves = list(Run(configure(tmp_path, pictures, f"{STEADY}\naccumulate = 2"), CPU))
    for key in ("loss", "norm"):
        assert largest_difference(curve, halves, key) < TOLERANCE


def test_two_processes_give_the_curve_of_one(tmp_path: Path, pictures: Path, curve: list[dict[str, float]]) -> None:
    """Really started by torchrun; they share every batch over gloo, and add up two micro-batches each."""
    config = write_config(tmp_path, f"{STEADY}\naccumulate = 2")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "eocodec_cli"]
    done = subprocess.run(
        [sys.executable, *launch, "train", str(config), "--data", str(pictures), "--device", "cpu"],
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("checkpoint: ") == 1 and "2 x cpu" in done.stderr
    two = logged(tmp_path / "run" / "log.jsonl")
    for key in ("loss", "norm"):
        assert largest_difference(curve, two, key) < TOLERANCE
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").iteration == 13


def test_the_documented_launches_are_understood() -> None:
    """With options of eocodec that begin as options of torchrun do."""
    text = (ROOT / "docs" / "TRAINING.md").read_text().replace("\\\n", " ")
    launches = re.findall(r"^\$ torchrun (.*)$", text, re.MULTILINE)
    assert len(launches) >= 3 and any(" --start " in line for line in launches)
    for line in launches:
        parsed = get_args_parser().parse_args(shlex.split(line))
        assert parsed.module and parsed.training_script == "eocodec_cli"
        assert parsed.training_script_args[0] == "train" and "--data" in parsed.training_script_args


def test_what_cannot_be_resumed_is_one_sentence(tmp_path: Path, pictures: Path, call: Runner) -> None:
    path = write_config(tmp_path)
    command = ("train", path, "--data", pictures, "--out", tmp_path / "run", "--device", "cpu", "--resume")
    for more, words in (((), b"holds no checkpoint to go on from"), (("--start", path), b"give one of them")):
        done = call(*command, *more)
        assert done.returncode and words in done.stderr and b"Traceback" not in done.stderr


def test_a_killed_run_resumes_to_the_identical_log_and_checkpoint(tmp_path: Path, pictures: Path, call: Runner) -> None:
    keys, first, second = "checkpoint_every = 4\nvalidate_every = 1000", 4, 16
    whole = configure(tmp_path / "whole", pictures, keys, first, second)
    for _ in Run(whole, CPU):
        pass
    config = write_config(tmp_path / "killed", keys, first, second)
    command = ["train", str(config), "--data", str(pictures), "--device", "cpu"]
    log, checkpoint = config.parent / "run" / "log.jsonl", config.parent / "run" / "checkpoint.pt"
    with subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", *command],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        # Killed a few iterations after a checkpoint (of every 4), so that the log is ahead of it.
        wait_until(
            lambda: (
                process.poll() is not None
                or (log.exists() and log.read_text().count("\n") % 4 >= 2 and checkpoint.exists())
            ),
            every=0.002,
        )
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    killed = log.read_text().count("\n")
    assert load_checkpoint(checkpoint).iteration < killed < first + second
    with open(log, "a") as file:
        file.write('{"iteration": 99, "lo')  # a line that the kill cut off
    assert call(*command, "--resume").returncode == 0
    assert log.read_bytes() == (whole.out / "log.jsonl").read_bytes()
    got, want = (load_checkpoint(p).raw for p in (checkpoint, whole.out / "checkpoint.pt"))
    assert_identical(got, want)


def assert_identical(a: object, b: object, where: str = "checkpoint") -> None:
    """Equality to the last bit of nested dictionaries, lists and tensors."""
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list) and isinstance(b, list):
        for k, (p, q) in enumerate(zip(a, b, strict=True)):
            assert_identical(p, q, f"{where}[{k}]")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def test_resuming_continues_the_stream_gains_optimiser_and_average(tmp_path: Path, pictures: Path) -> None:
    config = configure(tmp_path, pictures)
    first = Run(config, CPU)
    for _ in range(8):
        first.advance()
    first.save()
    second = Run(config, CPU, resume=True)
    assert second.iteration == 8
    for a, b in ((first.model, second.model), (first.optimiser, second.optimiser)):
        assert_identical(a.state_dict(), b.state_dict())
    assert_identical(first.average, second.average)
    assert any(float(g.abs().sum()) > 0 for g in second.model.latents.gains)
    assert torch.equal(first._pictures(), second._pictures())
    assert [first.advance() for _ in range(3)] == [second.advance() for _ in range(3)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The folder of a run with a checkpoint at iteration 3."""
    run = Run(configure(tmp_path_factory.mktemp("begun"), pictures), CPU)
    for _ in range(3):
        run.advance()
    run.save()
    return run.config.out


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimiser", "soap", "optimiser = 'adam' and not 'soap'"),
        ("stream", "aligned", "stream = 'crops' and not 'aligned'"),
        ("seed", 2, "seed = 1 and not 2"),
        ("hold_out", 4, "hold_out = 3 and not 4"),
        ("hold_out_by", "group", "hold_out_by = 'picture' and not 'group'"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_resumed(
    tmp_path: Path, pictures: Path, begun: Path, key: str, value: object, words: str
) -> None:
    cut = [(name, picture[:32, :32]) for name, picture in read_pictures(pictures)]  # a size that both streams take
    config = replace(configure(tmp_path, pictures), out=begun)
    with pytest.raises(EocodecError, match=f"a run with {words};"):
        aligned = (cut, cut) if key == "stream" else None
        Run(replace(config, **{key: value}), CPU, resume=True, pictures=aligned)


@pytest.mark.parametrize("old, new", [("soap", "adam"), ("aligned", "crops")])
def test_states_say_of_which_optimiser_and_stream_they_are(tmp_path: Path, pictures: Path, old: str, new: str) -> None:
    key = "stream" if new == "crops" else "optimiser"
    cut = [(name, picture[:48, :48]) for name, picture in read_pictures(pictures)]
    config = replace(configure(tmp_path, pictures), crop=48 if key == "stream" else 32, **{key: old})
    run = Run(config, CPU, pictures=(cut, cut))
    run.advance()
    run.save()
    raw = load_checkpoint(run.checkpoint).raw
    torch.save({k: v for k, v in raw.items() if k not in ("settings", "pictures")}, run.checkpoint)  # as they once were
    Run(config, CPU, resume=True, pictures=(cut, cut))
    with pytest.raises(EocodecError, match=f"{key} = '{old}' and not '{new}'"):
        Run(replace(config, crop=32, **{key: new}), CPU, resume=True, pictures=(cut, cut))


def test_it_is_said_what_makes_a_resumed_run_another_one(tmp_path: Path, pictures: Path, begun: Path) -> None:
    config = replace(configure(tmp_path, pictures), out=begun)
    said: list[str] = []
    Run(config, CPU, resume=True, report=said.append)
    assert not said
    run = Run(replace(config, batch=8, epsilon=1e-3), CPU, resume=True, report=said.append)
    assert len(said) == 1 and "batch = 4 and not 8, epsilon = 1e-08 and not 0.001;" in said[0]
    assert [group["eps"] for group in run.optimiser.param_groups] == [1e-3, 1e-3]
    Run(replace(config, crop=48), CPU, resume=True, report=said.append)
    assert len(said) == 2 and "crop = 32 and not 48" in said[1]
    train, held_out = split(read_pictures(pictures), 3)
    Run(config, CPU, resume=True, report=said.append, pictures=(train[1:], held_out))
    assert len(said) == 3 and "other pictures to train on" in said[2]
    raw = load_checkpoint(begun / "checkpoint.pt").raw
    older = replace(config, out=tmp_path / "older", batch=8)
    older.out.mkdir()
    torch.save({k: v for k, v in raw.items() if k not in ("settings", "pictures")}, older.out / "checkpoint.pt")
    assert Run(older, CPU, resume=True, report=said.append, pictures=(train[1:], held_out)).iteration == 3
    assert len(said) == 3


def test_a_plan_that_is_done_is_said_to_be(tmp_path: Path, pictures: Path, begun: Path, call: Runner) -> None:
    shutil.copytree(begun, tmp_path / "run")
    config = write_config(tmp_path, first=1, second=1)
    done = call("train", config, "--data", pictures, "--device", "cpu", "--resume")
    assert done.returncode == 0, done.stderr
    assert b"nothing is left to do: iteration 3 is reached, and the stages have 2 together" in done.stderr


def test_a_training_that_does_not_begin_leaves_no_folder(tmp_path: Path, pictures: Path, call: Runner) -> None:
    config = write_config(tmp_path)
    for more in (("--data", tmp_path / "missing"), ("--data", pictures, "--start", config)):
        done = call("train", config, "--device", "cpu", "--out", tmp_path / "new" / "run", *more)
        assert done.returncode == 1 and not (tmp_path / "new").exists(), done.stderr
    (tmp_path / "run").mkdir()
    call("train", config, "--device", "cpu", "--data", tmp_path / "missing")
    assert (tmp_path / "run").exists()  # which was there before


def test_steps_of_bands_follow_the_flow_unless_they_are_fixed(tmp_path: Path, pictures: Path) -> None:
    config = configure(tmp_path, pictures)
    likelihood, joint = config.stages
    moved = []
    for fixed in (False, True):
        run = Run(replace(config, stages=(likelihood, replace(joint, fixed_steps=fixed))), CPU)
        assert isinstance(run.model, PhotoModel)
        gains: list[torch.Tensor] = []
        for k in range(1, 14):
            run.advance()
            if k in (6, 13):  # the end of each stage
                gains.append(torch.cat([g.flatten().clone() for g in run.model.latents.gains]))
        assert gains[0].any()
        moved.append(not torch.equal(*gains))
    assert moved == [True, False]


@pytest.mark.parametrize("objective", ["rate-distortion", "entropy", "refinement"])
def test_the_weight_is_what_a_bit_is_worth_in_squared_steps(tmp_path: Path, pictures: Path, objective: str) -> None:
    config = configure(tmp_path, pictures)
    errors = []
    for weight in (0.17, 0.085):
        stage = replace(config.stages[1], objective=objective, step=(12.0, 12.0), weight=weight)
        figures = Run(replace(config, stages=(stage,)), CPU).advance()
        errors.append((figures["lagrangian"] - figures["bits_per_pixel"] / 3) * weight)
    assert errors[0] > 0
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)


def rated(folder: Path, pictures: Path, rate: str, first: int, second: int, keys: str = "") -> TrainingConfig:
    path = write_config(folder, keys, first, second)
    path.write_text(re.sub(r"(learning|final)_rate = .*", rf"\1_rate = {rate}", path.read_text()))
    return load_config(path, pictures)


@pytest.mark.parametrize("first", [1, 6])
def test_a_run_that_diverges_is_one_sentence_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, pictures: Path, first: int
) -> None:
    good = Run(configure(tmp_path, pictures, "", 2, 2), CPU)
    good.advance()
    good.save()
    before = good.checkpoint.read_bytes()
    run = Run(rated(tmp_path, pictures, "1e9", first, 1), CPU)
    run.total = first
    with pytest.raises(EocodecError, match=r"the training diverged in iteration \d: .*lower learning_rate \(1e\+09"):
        for _ in run:
            pass
    assert run.checkpoint.read_bytes() == before
    assert all(math.isfinite(r["loss"]) for r in logged(run.log))


def test_one_step_without_a_gradient_is_left_out_and_many_end_the_run(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(configure(tmp_path, pictures, "", 30, 2), CPU)
    norms = iter([math.inf] + [1.0] + [math.inf] * 30)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *arguments: torch.tensor(next(norms)))
    weights = [p.clone() for p in run.model.parameters()]
    run.advance()
    assert all(torch.equal(a, b) for a, b in zip(weights, run.model.parameters(), strict=True))
    with pytest.raises(EocodecError, match="diverged in iteration 12: its loss or gradient is not finite"):
        for _ in range(30):
            run.advance()


def test_a_validation_that_is_not_finite_is_one_sentence(tmp_path: Path, pictures: Path) -> None:
    run = Run(configure(tmp_path, pictures), CPU)
    run.average = {k: v * math.nan if v.is_floating_point() else v for k, v in run.average.items()}
    with pytest.raises(EocodecError, match="diverged in iteration 0: its validation is not finite"):
        run.validate(write=False)


def test_batches_that_cannot_be_shared_are_refused(tmp_path: Path, pictures: Path) -> None:
    from eocodec.flow.distributed import Ranks

    with pytest.raises(EocodecError, match="batch = 4 cannot be shared by 3 processes"):
        Run(configure(tmp_path, pictures), CPU, ranks=Ranks(1, 3, 1))
    with pytest.raises(EocodecError, match="accumulate = 3 does not divide batch = 4"):
        configure(tmp_path, pictures, "accumulate = 3")


def test_random_numbers_do_not_depend_on_how_the_batch_is_cut() -> None:
    whole, parts = Draws(5, 0, 6), [Draws(5, k, 2) for k in (0, 2, 4)]
    for draw in (lambda d: d.normal(3, 4), lambda d: d.uniform(), lambda d: d.integers(1000, 7)):
        joined = draw(whole)
        assert torch.equal(joined, torch.cat([draw(p) for p in parts]))
        assert len(torch.unique(joined)) > 5
    draws = {float(torch.rand((), generator=d.shared)) for d in (whole, *parts)}
    assert len(draws) == 1
    many = Draws(1, 0, 4000).normal(4)
    assert abs(float(many.mean())) < 0.03 and abs(float(many.std()) - 1) < 0.03


class Gain(Trainable):
    """The smallest model there is: one factor."""

    def __init__(self) -> None:
        super().__init__(None)
        self.factor = torch.nn.Parameter(torch.tensor(0.5))

    def likelihood(self, x, step, stage, draws):  # type: ignore[no-untyped-def]
        raise AssertionError("this test has no likelihood stage")

    def usable(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def rate_distortion(
        self, x: "torch.Tensor", steps: Steps, dead_zone: float, quantised: bool
    ) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        return x * self.factor, (x * self.factor).abs().sum((1, 2, 3)), x * self.factor


def test_a_compiled_objective_gives_the_same_loss_and_gradient() -> None:
    from torch._inductor import config as inductor

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler on CPUs, and there is none here")
    messages: list[str] = []
    results = []
    # Trying out vector instructions and compiling all headers beforehand takes the compiler longer than the kernels,
    # and optimising these longer than running them.
    quick = {"cpp.simdlen": 1, "cpp_cache_precompile_headers": False, "aot_inductor.debug_compile": True}
    with inductor.patch(quick):
        for compile in (True, False):
            model = Gain()
            objective = BatchLoss(model, False, compile, messages.append)
            x = torch.linspace(0, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
            loss, figures, _ = objective(Stage("rate-distortion", 1), x, torch.ones(RATE_BINS), 5, 0)
            loss.backward()
            results.append([loss.item(), figures["mse"].item(), model.factor.grad.item()])
    assert messages == []
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_the_photo_model_can_be_traced_for_compilation(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without generating code, which takes minutes."""
    small = PhotoConfig(levels=1, width=8, steps=1, features=8, context_width=8, refine_width=8, refine_depth=2)
    # One iteration of each objective, and its gradient: tracing takes the time.
    config = replace(configure(tmp_path / "a", pictures, STEADY, 1, 1), model=small)
    plain = list(Run(config, CPU))
    monkeypatch.setattr(batch_loss.torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    messages: list[str] = []
    config = replace(config, out=tmp_path / "b", compile=True)
    traced = list(Run(config, CPU, report=messages.append))
    assert messages == []
    for key in ("loss", "norm"):  # "norm" is that of the gradient
        assert largest_difference(plain, traced, key) < TOLERANCE


def test_without_a_compiler_training_says_so_once_and_goes_on(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def broken(function: object) -> object:
        def call(*arguments: object) -> None:
            for a in arguments:
                if isinstance(a, Draws):
                    a.normal(3)  # a graph before the one that fails may have drawn already
            raise TorchDynamoException("no working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(batch_loss.torch, "compile", broken)
    messages: list[str] = []
    config = configure(tmp_path / "b", pictures, "compile = true", 2, 2)
    fallen = [r["loss"] for r in Run(config, CPU, report=messages.append)]
    assert len(messages) == 1 and messages[0].endswith("goes on without it: no working C++ compiler found")
    monkeypatch.undo()
    assert fallen == [r["loss"] for r in Run(configure(tmp_path / "a", pictures, "", 2, 2), CPU)]


def test_the_mean_of_checkpoints_is_a_start_and_no_run(tmp_path: Path, pictures: Path) -> None:
    runs = [Run(replace(configure(tmp_path / str(k), pictures), seed=k), CPU) for k in range(3)]
    for run in runs:
        run.save()
    paths = [run.checkpoint for run in runs]
    mean.main([*map(str, paths), str(tmp_path / "mean.pt")])
    averages = [load_checkpoint(path).average for path in paths]
    name = "flow.levels.0.predict.0.net.0.weight"
    assert not torch.equal(averages[0][name], averages[1][name])
    found = load_checkpoint(tmp_path / "mean.pt").average
    torch.testing.assert_close(found[name], (averages[0][name] + averages[1][name] + averages[2][name]) / 3)
    started = Run(configure(tmp_path / "new", pictures), CPU, start=tmp_path / "mean.pt")
    assert torch.equal(started.model.state_dict()[name], found[name])
    paths[0].write_bytes((tmp_path / "mean.pt").read_bytes())
    with pytest.raises(EocodecError, match="weights only"):
        Run(runs[0].config, CPU, resume=True)
    with pytest.raises(EocodecError, match="two checkpoints"):
        mean.mean_of(paths[:1])
    other = Run(replace(runs[0].config, out=tmp_path / "other", model=PhotoConfig(levels=2, width=16)), CPU)
    other.save()
    with pytest.raises(EocodecError, match="other sizes"):
        mean.mean_of([paths[1], other.checkpoint])


def test_every_kind_of_model_keeps_a_checkpoint(tmp_path: Path, pictures: Path) -> None:
    """And one without a kind, as written before there were several, is a photo model."""
    run = Run(configure(tmp_path, pictures), CPU)
    run.save()
    loaded = load_checkpoint(run.checkpoint)
    assert loaded.kind == "photo" and loaded.config == run.config.model and isinstance(loaded.config, PhotoConfig)
    raw = torch.load(run.checkpoint, weights_only=True)
    del raw["model_kind"]
    torch.save(raw, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").config == run.config.model
    raw["model_kind"] = "nonsense"
    torch.save(raw, tmp_path / "odd.pt")
    with pytest.raises(EocodecError, match="not an eocodec checkpoint"):
        load_checkpoint(tmp_path / "odd.pt")
    other = replace(run.config, model=PhotoConfig(levels=2, width=16))
    with pytest.raises(EocodecError, match=r"not the configured one: width = 8 and not 16, steps = 1 and not 2"):
        Run(other, CPU, resume=True)


def test_every_registered_model_names_its_sizes_in_plain_values() -> None:
    for sizes, kind in MODELS.values():
        assert kind.likelihood.__doc__ and kind.rate_distortion.__doc__
        assert all(isinstance(v, int | float | str | bool | tuple) for v in vars(sizes()).values())


# The configuration and the command


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bacth = 8", "the key bacth is unknown"),
        ('batch = "8"', "batch must be of type int"),
        ('stream = "films"', "stream must be one of crops, aligned"),
        ('hold_out_by = "hand"', "hold_out_by must be one of picture, group"),
        ("hold_out = 1", "hold_out must be at least 2"),
        ("crop = 0", "crop must be at least 1"),
        ("threads = -1", "threads must be a finite number of at least 0"),
        ("average = 2.0", "average must be below 1"),
        ("average = nan", "average must be a finite number"),
        (f"seed = {10**30}", r"seed must be at most 2\^63 - 1"),
        (f"threads = {10**400}", r"threads must be at most 2\^63 - 1"),
    ],
)
def test_impossible_configurations_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = write_config(tmp_path)
    key = text.split(" = ")[0]
    lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{key} =")]
    path.write_text("\n".join([text, *lines]))
    with pytest.raises(EocodecError, match=message):
        load_config(path)


@pytest.mark.parametrize("weight", ["0.0", "-0.17", "nan"])
def test_the_weight_of_a_stage_is_above_zero(tmp_path: Path, weight: str) -> None:
    path = write_config(tmp_path)
    path.write_text(f"{path.read_text()}\nweight = {weight}\n")  # of the last stage
    with pytest.raises(EocodecError, match="the weight of a stage must be above 0"):
        load_config(path)


def test_bad_sections_are_refused_by_name(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    text = path.read_text()
    for old, new, message in (
        ("levels = 2", "lvels = 2", r"the key lvels in \[model\] is unknown"),
        ("levels = 2", 'kind = "hologram"', "kind = 'hologram' is unknown"),
        ("levels = 2", "levels = 0", r"levels in \[model\] must be a finite number of at least 1"),
        ("levels = 2", "levels = 99", r"levels in \[model\] must be at most 4 for crop = 32"),
        ("step = [2, 8]", "step = [2, 8]\nflow_rate = nan", r"flow_rate in \[\[stage\]\] must be a finite"),
        ("step = [2, 8]", "step = 3", r"step in \[\[stage\]\] must be a list of 2 numbers"),
        ("step = [2, 8]", "step = [8, 2]", "0 < low <= high"),
        ("iterations = 6", "", r"the key iterations in \[\[stage\]\] is missing"),
        ('out = "run"', "", "the key out is missing"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(EocodecError, match=message):
            load_config(path)


def test_the_shipped_configurations_load(tmp_path: Path) -> None:
    models = Path(batch_loss.__file__).parent.parent / "models"
    for path in sorted(models.glob("*.toml")):
        config = load_config(path, tmp_path, tmp_path)
        assert type(config.model) in {sizes for sizes, _ in MODELS.values()}


def test_a_crop_that_the_model_does_not_take_is_refused(tmp_path: Path, pictures: Path) -> None:
    path = write_config(tmp_path)
    path.write_text(path.read_text().replace("crop = 32", "crop = 36"))
    with pytest.raises(EocodecError, match="crop = 36 is no size that the model takes; 32 is"):
        Run(load_config(path, pictures), CPU)


def test_a_dry_run_and_the_loader_benchmark_write_nothing(tmp_path: Path, pictures: Path, call: Runner) -> None:
    config = write_config(tmp_path)
    done = call("train", config, "--data", pictures, "--device", "cpu", "--dry-run")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "stage 1, likelihood" in text and "stage 2, rate-distortion" in text and "nothing was written" in text
    done = call("train", config, "--data", pictures, "--benchmark-loader")
    assert done.returncode == 0 and b"megapixels/s" in done.stdout
    assert not (tmp_path / "run").exists()


# The pictures


def test_a_run_folder_that_cannot_be_written_to_is_said_before_pictures_are_read(tmp_path: Path, call: Runner) -> None:
    config = write_config(tmp_path)
    (tmp_path / "pictures").mkdir()  # without any
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "run" / "one", Path("/proc/run"), tmp_path / ("x" * 300)):
        done = call("train", config, "--device", "cpu", "--out", out)
        assert done.returncode == 1 and b"cannot be written" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_two_trainings_do_not_work_in_one_folder(tmp_path: Path, call: Runner) -> None:
    config, out = write_config(tmp_path), tmp_path / "run"
    (tmp_path / "pictures").mkdir()  # without any
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(b"")
    held = lock_folder(out)
    if held is None:
        pytest.skip("the system has no locks")
    try:
        done = call("train", config, "--device", "cpu", "--out", out, "--resume")
        assert done.returncode == 1 and b"another training is at work there" in done.stderr
    finally:
        os.close(held)
    done = call("train", config, "--device", "cpu", "--out", out, "--resume")
    assert done.returncode == 1 and b"another training" not in done.stderr  # but that there are no pictures


def test_shards_hold_the_same_pictures_in_the_same_order_as_their_folder(tmp_path: Path, pictures: Path) -> None:
    want = read_pictures(pictures)
    assert len(want) == 9
    files = {p.relative_to(pictures).as_posix(): p.read_bytes() for p in sorted(pictures.rglob("*.png"))}
    files |= {f"{name.split('.')[0]}.json": b"{}" for name in files} | {"set0/._chelsea.png": b"resource fork"}
    names = sorted(files)
    for k in range(3):  # samples dealt out in turn: the order must not depend on the shards
        shard(tmp_path / f"part-{k:03d}.tar", {n: files[n] for n in names if hash_of(n) % 3 == k})
    for source in (tmp_path, tmp_path / "part-{000..002}.tar", tmp_path / "part-*.tar", f"{tmp_path}/part-00[0-2].tar"):
        got = read_pictures(source)
        assert [n for n, _ in got] == [n for n, _ in want]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(got, want, strict=True))
    one = shard(tmp_path / "one.tar", files)
    assert len(read_pictures(one)) == 9


def hash_of(name: str) -> int:
    return sum(name.split(".")[0].encode())


def test_braces_name_shards() -> None:
    assert expand("s-{000..011}.tar")[::11] == ["s-000.tar", "s-011.tar"]
    assert expand("{a,b}/{1..2}.tar") == ["a/1.tar", "a/2.tar", "b/1.tar", "b/2.tar"]
    with pytest.raises(EocodecError, match="is empty"):
        expand("s-{3..1}.tar")


def test_bad_pictures_and_shards_are_named(tmp_path: Path, pictures: Path) -> None:
    good = (pictures / "set0").glob("*.png").__next__().read_bytes()
    shard(tmp_path / "a-0.tar", {"x.png": good})
    with pytest.raises(EocodecError, match=r"the shard .*a-1\.tar does not exist|a-1.tar does not exist"):
        read_pictures(tmp_path / "a-{0..1}.tar")
    bad = shard(tmp_path / "b.tar", {"x.png": good, "dir/y.png": good[: len(good) // 2]})
    with pytest.raises(EocodecError, match=r"dir/y\.png in .*b\.tar: the picture is damaged"):
        read_pictures(bad)
    twice = shard(tmp_path / "c.tar", {"x.png": good, "x.seg.png": good})
    with pytest.raises(EocodecError, match=r"x\.png and x\.seg\.png are two pictures of one sample"):
        read_pictures(twice)
    cut = tmp_path / "d.tar"
    cut.write_bytes(bad.read_bytes()[: len(good) + 1000])
    with pytest.raises(EocodecError, match=r"d\.tar"):
        read_pictures(cut)
    (tmp_path / "e.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(EocodecError, match=r"cannot read the shard .*e\.tar"):
        read_pictures(tmp_path / "e.tar")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(tmp_path / "a-0.tar", mixed)
    (mixed / "z.png").write_bytes(good)
    for place, message in (
        (mixed, "both pictures and .tar shards"),
        (tmp_path / "nothing", "does not exist"),
        (tmp_path / "*.webp", "no file matches"),
        (mixed / "z.png", "neither a folder nor a .tar"),
    ):
        with pytest.raises(EocodecError, match=message):
            read_pictures(place)
    (mixed / "z.png").write_bytes(good[:200])
    (mixed / "a-0.tar").unlink()
    with pytest.raises(EocodecError, match=r"z\.png: the picture is damaged"):
        read_pictures(mixed)
    for k in range(6):
        (mixed / f"y{k}.png").write_bytes(good[:200])
    with pytest.raises(EocodecError, match=r"^7 of 7 pictures cannot be read: .*y0\.png: .*y4\.png: .*; and 2 more$"):
        read_pictures(mixed)


def test_a_folder_of_pictures_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "locked").mkdir(parents=True)
    Image.new("RGB", (40, 90)).save(tmp_path / "in" / "a.png")
    look = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EocodecError, match=r"in/locked: cannot be read \(Permission denied\)"):
        read_pictures(tmp_path / "in")


def test_it_is_said_where_the_hold_out_leaves_nothing_to_train_on(tmp_path: Path, pictures: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(next((pictures / "set0").glob("*.png")), folder / "a.png")
    for keys in ("", 'hold_out_by = "group"', 'stream = "aligned"'):
        with pytest.raises(EocodecError, match=r"no picture is left to train on: hold_out = 3 \(by .*\) takes 1 of 1"):
            Run(configure(tmp_path, folder, keys), CPU)
    Image.new("RGB", (40, 90)).save(folder / "b.png")
    with pytest.raises(EocodecError, match="no picture that is not held out is at least 48 pixels wide and high"):
        Run(configure(tmp_path, folder), CPU)


def test_holding_out_by_group_leaks_no_identity(tmp_path: Path) -> None:
    names = ["Ann_Lee_0001", "Ann_Lee_0002", "Ann_Lee_0003", "Bo_0001", "Cy_Doe_0001", "Cy_Doe_0002", "Di_0001"]
    folder = faces(tmp_path / "faces", names)
    train, held_out = split(read_pictures(folder), 2, "group")
    people = [{n.rsplit("_", 1)[0] for n, _ in part} for part in (train, held_out)]
    assert people == [{"Bo", "Di"}, {"Ann_Lee", "Cy_Doe"}]
    train, held_out = split(read_pictures(folder), 2)
    assert [n for n, _ in held_out] == [f"{n}.png" for n in names[::2]]


def test_aligned_pictures_are_whole_and_each_is_shown_once_an_epoch(tmp_path: Path) -> None:
    pictures = read_pictures(faces(tmp_path / "faces", [f"p{k}" for k in range(6)]))
    stream = AlignedStream(pictures, 32, 3)
    known = {p.tobytes(): k for k, (_, p) in enumerate(pictures)}
    mirrored = {p[:, ::-1].tobytes(): k for k, (_, p) in enumerate(pictures)}
    order = []
    flips = 0
    for _ in range(20):
        for picture in stream.batch(3):
            flips += picture.tobytes() in mirrored
            order.append((known | mirrored)[picture.tobytes()])
    epochs = [order[k : k + 6] for k in range(0, 60, 6)]
    assert all(sorted(e) == list(range(6)) for e in epochs) and len({tuple(e) for e in epochs}) > 5
    assert 15 < flips < 45
    faces(tmp_path / "wrong", ["odd_0001"], 40)
    with pytest.raises(EocodecError, match=r"odd_0001\.png is 40x40 pixels; aligned pictures must all be 32x32"):
        AlignedStream(read_pictures(tmp_path / "wrong"), 32, 3)


def test_aligned_pictures_train(tmp_path: Path) -> None:
    folder = faces(tmp_path / "faces", [f"Name{k // 2}_000{k % 2}" for k in range(12)])
    keys = 'stream = "aligned"\nhold_out_by = "group"'
    run = Run(configure(tmp_path, folder, keys, 2, 2), CPU)
    assert [n for n, _ in run.held_out] == ["Name0_0000.png", "Name0_0001.png", "Name3_0000.png", "Name3_0001.png"]
    assert all(math.isfinite(r["loss"]) for r in run)
    assert run.validate((16.0,))["points"]["16"][1] > 15


def test_a_model_is_prepared_once_on_all_aligned_pictures(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(PhotoModel, "prepare", lambda self, x, generator: seen.append(tuple(x.shape)))
    config = configure(tmp_path, faces(tmp_path / "faces", [f"p{k}" for k in range(6)]), 'stream = "aligned"')
    Run(config, CPU).save()
    assert seen == [(4, 3, 32, 32)]  # two of the six are held out
    Run(config, CPU, resume=True)
    Run(configure(tmp_path / "crops", pictures), CPU)
    assert len(seen) == 1


@pytest.mark.parametrize("kind", ["crops", "aligned"])
def test_a_part_of_a_batch_is_a_slice_of_the_whole(tmp_path: Path, pictures: Path, kind: str) -> None:
    def stream() -> CropStream | AlignedStream:
        if kind == "crops":
            return CropStream([p for _, p in read_pictures(pictures)], 32, 4)
        return AlignedStream(square, 32, 4)

    square = [(n, p[:32, :32]) for n, p in read_pictures(pictures)]
    whole, part = stream(), stream()
    for _ in range(4):
        assert np.array_equal(whole.batch(6)[2:4], part.batch(6, 2, 2))
    assert whole.state() == part.state()
    later = stream()
    later.restore(whole.state())
    assert np.array_equal(whole.batch(6), later.batch(6))


def test_preparing_ahead_keeps_order_and_state(pictures: Path) -> None:
    photos = [p for _, p in read_pictures(pictures)]
    plain, ahead = CropStream(photos, 32, 4), Prefetch(CropStream(photos, 32, 4), 4, 0, 4)
    assert ahead.state == plain.state()
    for _ in range(8):
        assert np.array_equal(plain.batch(4), ahead.take())
        assert ahead.state == plain.state()  # of the batch taken, not of those prepared
    broken = Prefetch(AlignedStream([("a", photos[0][:32, :32])], 32, 1), 4, 0, 0)
    with pytest.raises(ValueError):  # nothing to stack
        broken.take()


def test_speed_counts_pictures_and_waiting(tmp_path: Path, pictures: Path) -> None:
    run = Run(configure(tmp_path, pictures), CPU)
    run.advance()
    run.speed()
    for _ in range(4):
        run.advance()
    speed = run.speed()
    assert speed["pictures_per_second"] > 0 and 0 <= speed["waiting"] <= 1
    assert speed["loader_pictures_per_second"] > speed["pictures_per_second"] * 0.5


def test_nets_that_do_not_fit_the_start_are_named(tmp_path: Path, pictures: Path) -> None:
    first = Run(configure(tmp_path / "first", pictures), CPU)
    first.save()
    said: list[str] = []
    Run(configure(tmp_path / "same", pictures), CPU, start=first.checkpoint, report=said.append)
    assert not said
    path = write_config(tmp_path / "other")
    path.write_text(path.read_text().replace("refine_width = 8", "refine_width = 12"))
    Run(load_config(path, pictures), CPU, start=first.checkpoint, report=said.append)
    assert len(said) == 1 and said[0].endswith("configuration; net begins anew: refine")
    path.write_text(path.read_text().replace("features = 8", "features = 6"))  # larger ones begin as these
    Run(load_config(path, pictures), CPU, start=first.checkpoint, report=said.append)
    assert said[1].endswith("configuration; nets begin anew: latents, refine")
