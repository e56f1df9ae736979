"""What blind denoising does to pictures that are clean: their distance to the input.

    python benchmarks/denoise_clean.py FOLDER… [--method auto]

Prints for every folder the estimated levels (8-bit) and the PSNR (dB) of the 8-bit result against the input; a picture
that comes back as it was counts as 99 dB. Needs the extra `bench`.
"""

import argparse
from pathlib import Path

import numpy as np

from eocodec.bench.pictures import read_folder
from eocodec.denoising import denoise_picture
from eocodec.metrics import psnr
from eocodec.model.library import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--method", default="auto", choices=["auto", "net", "shrink", "drop"])
    options = parser.parse_args()
    model = load_model("photo")
    for folder in options.folders:
        levels, distances, names = [], [], []
        for name, picture in read_folder(folder):
            done = denoise_picture(picture, method=options.method, model=model)
            levels.append(done.sigma or 0.0)
            distances.append(min(99.0, psnr(picture, done.rgb)))
            names.append(name)
        worst = int(np.argmin(distances))
        print(
            f"{folder.name}: {len(names)} pictures, {sum(d == 99 for d in distances)} unchanged; "
            f"level {np.mean(levels):.2f}, at most {max(levels):.2f}; "
            f"distance at least {distances[worst]:.2f} dB ({names[worst]}, level {levels[worst]:.2f})"
        )


if __name__ == "__main__":
    main()
