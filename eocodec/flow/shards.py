"""Tar shards in the webdataset convention: which files a pattern means, and the pictures inside.

In: paths such as `shards-{000..011}.tar`. Out: the encoded bytes of one picture per sample. The members of a sample
share their path up to the first dot of the file name (`0001.jpg` and `0001.json`); only the picture is read.

References:
    *The WebDataset format*. https://github.com/webdataset/webdataset
"""

import glob
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from eocodec.errors import EocodecError
from eocodec.kinds import SUFFIXES

__all__ = ["expand", "read_shard"]


def expand(pattern: str) -> list[str]:
    """Paths that a pattern with braces and wildcards means: braces name every file, wildcards the files there are.

    Raises:
        EocodecError: a wildcard without a match.

    Example:
        >>> expand("a-{08..10}.tar")
        ['a-08.tar', 'a-09.tar', 'a-10.tar']
        >>> expand("{cats,dogs}.tar")
        ['cats.tar', 'dogs.tar']
    """
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace:
        parts = brace[1].split(",")
        if interval := re.fullmatch(r"(\d+)\.\.(\d+)", brace[1]):
            low, high = interval.groups()
            parts = [str(k).zfill(len(low)) for k in range(int(low), int(high) + 1)]
            if not parts:
                raise EocodecError(f"{pattern}: the range {{{brace[1]}}} is empty")
        return [path for part in parts for path in expand(pattern[: brace.start()] + part + pattern[brace.end() :])]
    if glob.has_magic(pattern) and not Path(pattern).exists():
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise EocodecError(f"no file matches {pattern}")
        return found
    return [pattern]


def read_shard(path: Path) -> Iterator[tuple[str, bytes]]:
    """The picture of every sample as (member's path, encoded bytes), in the order of the file.

    Raises:
        EocodecError: missing or damaged shard, or a sample with several pictures; the message names it.
    """
    last = ""
    seen: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                last = member.name
                place = PurePosixPath(member.name)
                if not member.isfile() or place.name.startswith(".") or place.suffix.lower() not in SUFFIXES:
                    continue
                key = str(place.with_name(place.name.split(".")[0]))
                if key in seen:
                    raise EocodecError(f"{path}: {seen[key]} and {member.name} are two pictures of one sample")
                seen[key] = member.name
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read()
            end = tar.offset
        with open(path, "rb") as file:  # tarfile takes a cut-off or damaged header for the end
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it is truncated or damaged there")
    except FileNotFoundError:
        raise EocodecError(f"the shard {path} does not exist") from None
    except (OSError, tarfile.TarError) as e:
        where = f" after {last}" if last else ""
        raise EocodecError(f"cannot read the shard {path}{where}: {e}") from e
