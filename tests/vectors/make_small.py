"""Make `small.eocm`, the model of the test vectors that the shipped models cannot make, and two made from it.

The first has rotated passes, tuning, a map of steps and embedded streams, in a few hundred kilobytes, and is no use but
for tests. `small-grey.eocm` has a part for grey pictures in place of the streams; `small-lossless.eocm` has nothing but
what lossless files take, with nets that look around. Weights depend on the machine that trains, so they were made once:
vectors name them by their ids, and they never change.

PYTHONPATH=. python tests/vectors/make_small.py OUT.eocm
PYTHONPATH=.:export python tests/vectors/make_small.py --grey OUT.eocm
PYTHONPATH=.:export python tests/vectors/make_small.py --lossless OUT.eocm
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = """
out = "run"
folder = "pictures"
crop = 64
batch = 4
hold_out = 6
validate_every = 10000
average = 0.95
threads = 1
[model]
levels = 3
width = 8
steps = 1
features = 8
context_width = 8
context_coarse = 1.5
context_depth = 2
rotated = true
tuned = true
embedded = true
refine_width = 8
refine_blocks = 1
refine_coarse = 8
[[stage]]
objective = "likelihood"
iterations = 150
noise = 2.0
correlation = 0.1
[[stage]]
objective = "entropy"
iterations = 200
tuned = 0.5
varied = 0.5
[[stage]]
objective = "rate-distortion"
iterations = 150
tuned = 0.5
varied = 0.5
quantised = true
[[stage]]
objective = "embedded"
iterations = 150
quantised = true
"""
EXPORT = "export run/checkpoint.pt --data pictures --name small --pictures 8"


def drawn(seed: int, width: int, height: int) -> np.ndarray:
    """A picture `(height, width, 3)` of waves, slopes and discs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.empty((height, width, 3))
    for colour in range(3):
        a, b, phase = rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15), rng.uniform(0, 6)
        slope = 60 * (x / width - rng.uniform()) * rng.normal()
        picture[..., colour] = 128 + 40 * np.sin(a * x + b * y + phase) + slope
    for _ in range(12):
        inside = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height)) < rng.uniform(4, 30)
        picture[inside] += rng.normal(0, 50, 3)
    picture += rng.normal(0, rng.uniform(0, 6), picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def with_grey_part(out: Path) -> None:
    """Write `small.eocm` with a part for grey pictures, without embedded streams."""
    from eocodec_export.grey import distilled, grey_parts, luma_alone, with_grey

    from eocodec.flow.model import PhotoModel
    from eocodec.flow.restored import photo_weights
    from eocodec.model.bundle import read_bundle, write_bundle
    from eocodec.model.parts import LIST, OPTIONAL

    files = read_bundle(Path(__file__).parent / "small.eocm")
    config, weights = photo_weights(files)
    colour = PhotoModel(config).eval()
    colour.load_state_dict({**colour.state_dict(), **weights})
    pictures = [drawn(seed, 200, 192) for seed in range(12)]
    model = luma_alone(colour, 8)
    distilled(colour, model, pictures, 300, 1, print)
    whole = {n: c for n, c in files.items() if not n.startswith(OPTIONAL["embedded"]) and n != LIST}
    write_bundle(out, with_grey(whole, grey_parts(model.eval().requires_grad_(False), whole, pictures, pictures[:2])))


def with_nets_that_look_around(out: Path) -> None:
    """Write a bundle for lossless files alone, whose nets are those of the shipped model but for their sizes."""
    import torch
    from eocodec_export.lossless import Effort, Nets, lossless_files

    from eocodec.model.bundle import read_bundle, write_bundle
    from eocodec.model.parts import listed

    torch.manual_seed(0)
    files = read_bundle(Path(__file__).parent / "small.eocm")
    base = {name: files[name] for name in ("manifest.json", "tables.bin", "compand.bin")}
    pictures = [drawn(seed, 200, 192) for seed in range(12)]
    sizes = {
        1: Nets((8, 8), 2, 8, 4, 300, 4, 24, 4),
        2: Nets((8, 8), 2, 8, 4, 150, 4, 20, 4),
        4: Nets((8, 8), 2, 8, 4, 100, 8, 20, 2),
    }
    added = lossless_files(base, pictures, effort=Effort(len(pictures), sizes), report=print)
    write_bundle(out, listed({**base, **added}))


def main() -> None:
    out = Path(sys.argv[-1]).resolve()
    further = {"--grey": with_grey_part, "--lossless": with_nets_that_look_around}
    if sys.argv[1] in further:
        further[sys.argv[1]](out)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        for seed in range(24):
            Image.fromarray(drawn(seed, 192, 160)).save(folder / "pictures" / f"{seed:02}.png")
        (folder / "small.toml").write_text(CONFIG)
        for arguments in ("train small.toml --device cpu", f"{EXPORT} -o {out}"):
            subprocess.run([sys.executable, "-m", "eocodec_cli", *arguments.split()], cwd=folder, check=True)


if __name__ == "__main__":
    main()
