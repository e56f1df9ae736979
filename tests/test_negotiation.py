"""Headers mean what HTTP says (RFC 9110), without a service that runs."""

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("werkzeug", reason="the extra serve is not installed")

from fastapi import HTTPException

from eocodec.service.negotiation import accepted, names_tag, span, wants_picture


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("text/html, image/tiff;q=0.9", "image/tiff"),
        ("image/png;q=0.5, image/webp;q=0.8, */*;q=0.1", "image/webp"),
        ("image/png;q=0, */*", "image/webp"),
        ("image/*;q=0.2, image/bmp;q=0.1", "image/png"),
        ("IMAGE/JPEG", "image/jpeg"),
    ],
)
def test_the_type_of_most_weight_is_sent(header: str, kind: str) -> None:
    assert accepted(header) == kind


@pytest.mark.parametrize("header", ["application/pdf", "image/*;q=0", "image/gif", "text/html, application/json"])
def test_what_cannot_be_sent_is_406(header: str) -> None:
    with pytest.raises(HTTPException) as caught:
        accepted(header)
    assert caught.value.status_code == 406


@pytest.mark.parametrize(
    ("header", "decoded"),
    [
        ("", False),
        ("*/*", False),
        ("*/*, image/png", False),
        ("image/x-eoc", False),
        ("application/octet-stream, */*", False),
        ("image/*", True),
        ("image/avif,image/webp,image/*,*/*;q=0.8", True),
        ("image/x-eoc;q=0, image/png", True),
        ("image/x-eoc, image/png;q=0.5", False),
    ],
)
def test_pictures_are_for_those_who_ask_for_them_first(header: str, decoded: bool) -> None:
    assert wants_picture(header) == decoded


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-99", (0, 100)),
        ("bytes=100-", (100, 1000)),
        ("bytes=-50", (950, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("bytes=990-5000", (990, 1000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("nonsense", None),
    ],
)
def test_a_single_range_of_bytes_is_served_and_others_are_ignored(header: str, found: tuple[int, int] | None) -> None:
    assert span(header, 1000) == found


@pytest.mark.parametrize(
    "header", ["bytes=1000-", "bytes=1000-2000", "bytes=99999999999999999999-", "bytes=-0", "Bytes = -00"]
)
def test_a_range_beyond_the_end_is_416(header: str) -> None:
    with pytest.raises(HTTPException) as caught:
        span(header, 1000)
    assert caught.value.status_code == 416 and caught.value.headers == {"Content-Range": "bytes */1000"}


def test_tags_are_compared_strongly_for_writing_and_weakly_for_reading() -> None:
    for header in ('"a"', '"x", "a"', "*"):
        assert names_tag(header, "a", weak=True) and names_tag(header, "a", weak=False)
    assert names_tag('W/"a"', "a", weak=True) and not names_tag('W/"a"', "a", weak=False)
    for header in ('"b"', "", None, '"a'):
        assert not names_tag(header, "a", weak=False), header
