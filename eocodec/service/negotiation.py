"""What a client accepts, which part it requests, and which version it has: the headers Accept, Range, If-Match and kin.

In: headers, parsed by `werkzeug.http`. Out: a type of picture, a span of bytes, whether a tag is named.
"""

import re
from collections.abc import Mapping

from fastapi import HTTPException
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_date, parse_etags, parse_range_header

from eocodec.service import work

__all__ = ["accepted", "modified_since", "names_tag", "shown", "span", "wants_picture"]


def accepted(header: str, default: str = "image/png") -> str:
    """The type of picture to send for an Accept header: the one of most weight, `default` before others.

    Raises:
        HTTPException: 406, none of those that can be sent is accepted.
    """
    ranges = parse_accept_header(header, MIMEAccept)
    if not ranges:
        return default
    kinds = [default, *(kind for kind in work.TYPES if kind != default)]
    chosen = max(kinds, key=ranges.quality)
    if ranges.quality(chosen) <= 0:
        raise HTTPException(406, f"pictures can be sent as {', '.join(work.TYPES)}")
    return chosen


def wants_picture(header: str) -> bool:
    """Whether an Accept header asks for pictures rather than for the file: for some kind of them before anything else.

    "*/*" alone, or first, leaves the choice to the service.
    """
    weights = {kind.lower(): weight for kind, weight in parse_accept_header(header, MIMEAccept)}
    pictures = [q for kind, q in weights.items() if kind.startswith("image/") and kind != work.EOC]
    files = [weights.get(kind, 0.0) for kind in (work.EOC, "application/octet-stream")]
    return max(pictures, default=0.0) > max(files) and not header.lstrip().startswith("*/*")


def shown(headers: Mapping[str, str]) -> bool:
    """Whether an image is to be shown, so that a picture is made of it, where the URL does not say what is sent."""
    return headers.get("sec-fetch-dest") == "image" or wants_picture(headers.get("accept", ""))


def span(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last of a Range header with a single range; None if it is to be ignored.

    Raises:
        HTTPException: 416, the range is beyond the end.
    """
    if re.fullmatch(r"\s*bytes\s*=\s*-0+\s*", header, re.I):  # for werkzeug the whole, for HTTP none of it
        raise HTTPException(416, "the last 0 bytes are none", {"Content-Range": f"bytes */{size}"})
    wanted = parse_range_header(header)
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return None
    first, stop = wanted.ranges[0]
    start = max(0, size + first) if first < 0 else first  # werkzeug refuses suffixes that are longer than the whole
    stop = min(size, stop or size)
    if start >= stop:
        raise HTTPException(416, f"the range is beyond the {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, stop


def names_tag(header: str | None, tag: str, weak: bool) -> bool:
    """Whether an If-Match (strong comparison) or If-None-Match header (weak) names a tag, given without quotes."""
    tags = parse_etags(header)
    return tags.contains_weak(tag) if weak else tags.contains(tag)


def modified_since(header: str | None, modified: float | str) -> bool | None:
    """Whether something was modified after a date, in whole seconds; None where the header is no date.

    Arguments:
        header: If-Modified-Since, If-Unmodified-Since.
        modified: seconds since 1970, or a date.
    """
    date = parse_date(header)
    if date is None:
        return None
    if isinstance(modified, str):
        known = parse_date(modified)
        assert known is not None, "a date of this service's"
        modified = known.timestamp()
    return int(modified) > int(date.timestamp())
