"""`eocodec morph`."""

import click

from eocodec_cli import files, pictures


@click.command("morph")
@click.argument("first", metavar="A.eoc")
@click.argument("last", metavar="B.eoc")
@click.option("-n", "count", type=click.IntRange(2, 64), default=8, show_default=True, help="Pictures, both included.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Picture with all of them side by side.")
@files.threads_option
@files.force_option
def command(first: str, last: str, count: int, output: str, threads: int, force: bool) -> None:
    """Pictures between two compressed faces, on the straight line between their latents.

    \b
    Examples:
      eocodec morph a.eoc b.eoc -o between.png
      eocodec morph a.eoc b.eoc -n 5 -o between.webp
    """
    import numpy as np

    import eocodec
    from eocodec.format import tiny_from_text
    from eocodec.image import to_pillow
    from eocodec.lab.paths.editing import morph
    from eocodec.writing import encode_picture

    target = files.plan_one([first, last], output, force)
    suffix = files.picture_suffix(target)
    model = eocodec.load_model("face64", threads)
    ends = []
    for source in (first, last):
        with files.named(source):
            ends.append(pictures.face(tiny_from_text(files.read_bytes(source)), model, source))
    sheet = np.concatenate(list(morph(ends[0], ends[1], count, model)), 1)
    files.write_bytes(target, encode_picture(to_pillow(sheet, None, False), suffix), force)
