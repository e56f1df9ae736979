"""Seconds and peak memory of encoding and decoding, each size in a process of its own.

    python benchmarks/speed.py PICTURE [WIDTHxHEIGHT ...]

The picture is tiled to every size; 5 runs (1 for large sizes) after a warm-up on a small picture; the median counts.
"""

import json
import resource
import statistics
import subprocess
import sys
import time


def measure(path: str, width: int, height: int) -> None:
    import numpy as np
    from PIL import Image

    from eocodec import codec

    tile = np.asarray(Image.open(path).convert("RGB"))
    codec.decompress(codec.compress(tile[:64, :64]))
    repeats = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1)
    picture = np.ascontiguousarray(np.tile(tile, repeats)[:height, :width])
    encode, decode = [], []
    for _ in range(5 if width * height < 1 << 21 else 1):
        start = time.perf_counter()
        data = codec.compress(picture)
        middle = time.perf_counter()
        codec.decompress(data)
        encode.append(middle - start)
        decode.append(time.perf_counter() - middle)
    print(
        json.dumps(
            {
                "size": f"{width}x{height}",
                "bytes": len(data),
                "encode_s": round(statistics.median(encode), 3),
                "decode_s": round(statistics.median(decode), 3),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


def main() -> None:
    if len(sys.argv) > 3 and sys.argv[2] == "--one":
        width, height = map(int, sys.argv[3].split("x"))
        measure(sys.argv[1], width, height)
        return
    for size in sys.argv[2:] or ["768x512", "6000x4000"]:
        subprocess.run([sys.executable, __file__, sys.argv[1], "--one", size], check=True)


if __name__ == "__main__":
    main()
