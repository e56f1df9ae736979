"""Make `small.eocm`, the model of the test vectors that the shipped models cannot make.

It has rotated passes, tuning, a map of steps and embedded streams, in a few hundred kilobytes, and is no use but for
tests. Weights depend on the machine that trains, so it was made once: vectors name it by its id, and it never changes.

PYTHONPATH=. python tests/vectors/make_small.py OUT.eocm
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


def main() -> None:
    out = Path(sys.argv[1]).resolve()
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
