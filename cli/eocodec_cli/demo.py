"""`eocodec demo`."""

from pathlib import Path

import click

from eocodec_cli import files

RATES = (4, 12, 32, 96, 300)
SIGMA = 25.0
CROP = 240  # pixels shown of each picture


@click.command("demo")
@click.option("-o", "--output", default="eocodec-demo.png", show_default=True, help="Where the picture strip goes.")
@files.threads_option
@files.force_option
def command(output: str, threads: int, force: bool) -> None:
    """Show compression and denoising on a bundled picture.

    Compresses it at several C, decodes, denoises a noisy copy, prints a table and writes a strip: original, core at
    rising C, noisy, denoised.

    \b
    Example:
      eocodec demo -o strip.png
    """
    import numpy as np
    from PIL import Image

    import eocodec.data
    from eocodec.codec import compress_picture, decompress
    from eocodec.denoising import denoise
    from eocodec.image import read_picture
    from eocodec.metrics import psnr
    from eocodec.model.library import load_model
    from eocodec.writing import encode_picture

    suffix = files.picture_suffix(output)
    files.check_new(output, force)
    files.check_place(output)
    model = load_model("photo", threads)
    picture = read_picture(Path(eocodec.data.__file__).parent / "chelsea.png").rgb
    shown = [picture]
    click.echo(f"{'':14}{'bytes':>8}{'bpp':>8}{'PSNR':>9}")
    for rate in RATES:
        done = compress_picture(picture, rate, model=model)
        decoded = decompress(done.data, model)
        shown.append(decoded)
        click.echo(f"{f'C = {rate}':14}{len(done.data):8}{done.bits_per_pixel:8.3f}{psnr(picture, decoded):9.2f}")
    noise = np.random.default_rng(0).normal(0, SIGMA, picture.shape)
    noisy = np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)
    clean = denoise(noisy, SIGMA, model=model)
    for name, result in (("noisy", noisy), ("denoised", clean)):
        shown.append(result)
        click.echo(f"{name:14}{'':16}{psnr(picture, result):9.2f}")
    top, left = 20, 110  # the cat's face
    crops = [p[top : top + CROP, left : left + CROP] for p in shown]
    gap = np.full((CROP, 4, 3), 255, np.uint8)
    strip = np.hstack([part for crop in crops for part in (crop, gap)][:-1])
    files.write_bytes(output, encode_picture(Image.fromarray(strip), suffix), force)
    click.echo(f"wrote {output}: original, C = {', '.join(map(str, RATES))}, noisy, denoised")
