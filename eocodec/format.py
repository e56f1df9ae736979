"""The `.eoc` file: header, side segments, latent segments; parsing and writing, nothing else.

In: bytes. Out: :class:`File`, and back. docs/FORMAT.md specifies every byte. The parser validates lengths, limits and
checksums before anything is allocated for the picture.
"""

import base64
from dataclasses import dataclass, replace

from eocodec import pieces, regions, varint
from eocodec.errors import FormatError, LimitError, UnknownTypeError
from eocodec.pieces import checksum_of
from eocodec.steps import STEP_ORIGIN, STEP_UNIT, TOP_CODE, exact_code, step_of_code

__all__ = [
    "MAGIC",
    "MAX_PIXELS",
    "MAX_SIDE",
    "RATE_UNIT",
    "STEP_UNIT",
    "AnyFile",
    "File",
    "Header",
    "Segment",
    "Tiny",
    "embedded_room",
    "embedded_size",
    "from_bytes",
    "is_tiny",
    "keep_segments",
    "parse",
    "parse_tiny",
    "rate_code",
    "read_number",
    "segment_ends",
    "serialise",
    "serialise_tiny",
    "tiny_from_text",
    "tiny_step",
    "to_bytes",
]

MAGIC = b"EOC"
VERSION = 1
KIND_VERSION = 2  # of files whose flags a byte of the kind follows
PAGE_KIND, ONE_AXIS_KIND, SPAN_KIND, DEEP_AXIS_KIND = 1, 2, 3, 4
MAX_SIDE = 1 << 20  # pixels
MAX_PIXELS = 1 << 28
MAX_SIDE_SEGMENT = 1 << 30  # bytes
RATE_UNIT = 64  # C is stored in 1/64
MAX_VALUE = 65535  # of a sample
FLAG_GREY = 1
FLAG_SIDE = 2
FLAG_EMBEDDED = 4
FLAG_LOSSLESS = 8
FLAG_TUNED = 16
FLAG_DEEP = 32
FLAG_LUMA = 64
FLAG_WEBP = 128
KNOWN_FLAGS = FLAG_GREY | FLAG_SIDE | FLAG_EMBEDDED | FLAG_LOSSLESS | FLAG_TUNED | FLAG_DEEP | FLAG_LUMA | FLAG_WEBP
# Flags that files of a kind can have.
KIND_FLAGS = {
    PAGE_KIND: FLAG_GREY | FLAG_SIDE | FLAG_WEBP,
    ONE_AXIS_KIND: FLAG_GREY | FLAG_SIDE | FLAG_TUNED | FLAG_WEBP,
    SPAN_KIND: FLAG_GREY | FLAG_SIDE | FLAG_DEEP | FLAG_LUMA | FLAG_WEBP,
    DEEP_AXIS_KIND: FLAG_GREY | FLAG_SIDE | FLAG_DEEP | FLAG_WEBP,
}
VP8L_SIGNATURE = 0x2F  # the first byte of a WebP stream; a zstd frame begins with 0x28
LOSSLESS_UNITS = 37  # coding units of every lossless file
ORDINARY_UNITS = {3: 25, 1: 17}  # of ordinary files of models of four levels, which all shipped ones are, by axes
LOSSLESS_STEP = STEP_ORIGIN  # Δ = 1 level
MAX_LOSSLESS = 4096  # bytes of the lossless element, and of the deep one
MAX_PAGE = 1 << 30  # bytes of a page's element
TINY_TAG = 0xF8  # first byte: tag + 2 · (number − 1) + grey; no UTF-8 text starts so, nor does a picture format
TINY_NUMBERS = 3
TINY_UNIT = 64  # in 1/2048 of an octave: steps of a tiny file are 1/32 of an octave apart
TINY_ORIGIN = STEP_ORIGIN + 3 * STEP_UNIT // 2  # log2 Δ = 1.5
MAX_TINY = 1 << 15  # bytes
SIDE_ALPHA = 1
SIDE_OFFSETS = 2
SIDE_SHIFTS = 3
SIDE_END = 0
SIDES = {SIDE_ALPHA: "transparency", SIDE_OFFSETS: "map of steps", SIDE_SHIFTS: "shifts of tables"}
MAX_TUNING = 32


@dataclass(frozen=True)
class Header:
    """The fixed part of a file.

    Arguments:
        model: first four bytes of the model's content hash.
        width, height: of the picture in pixels.
        rate: C in 1/64 latents a block.
        step: code of Δ, see :attr:`delta`.
        grey: the picture is grey; its channels are equal.
        embedded: one stream follows that may end anywhere (`eocodec.coding.embedded`); rate and step are zero.
        tuning: how much the steps of the levels follow the eye, in 1/32, see `eocodec.coding.fineness`.
        webp: transparency or packed samples may be a WebP stream (`eocodec.coding.webp`).
        deep: the samples have 16 bits, see `eocodec.coding.deep`.
        dropped: chroma details of a grey picture are zero and not coded.
        page: segments are files of the photographs on a page, see `eocodec.coding.page`.
        axes: colour axes of what was coded: 3, or 1 of grey pictures by a transform of their own, which has luma alone.
        span: the 16-bit values that 0 and 1 of the transform stand for, in deep files; None: 0 and 65535, which deep
            files of one axis say, too.
    """

    model: bytes
    width: int
    height: int
    rate: int
    step: int
    grey: bool = False
    embedded: bool = False
    tuning: int = 0
    webp: bool = False
    deep: bool = False
    dropped: bool = False
    page: bool = False
    axes: int = 3
    span: tuple[int, int] | None = None

    @property
    def luma(self) -> bool:
        """Whether nothing but luma is coded of details: chroma was dropped, or there is none."""
        return self.dropped or self.axes == 1

    @property
    def kind(self) -> int:
        """The byte of the kind, 0 in files of version 1, which have none."""
        if self.axes == 1:
            return DEEP_AXIS_KIND if self.span else ONE_AXIS_KIND
        return PAGE_KIND if self.page else SPAN_KIND if self.span else 0

    @property
    def fine(self) -> int:
        """Octaves by which a deep file's step is finer than the finest that the integer nets know, 1 to 2 levels."""
        return max(0, -((self.step - STEP_ORIGIN) // STEP_UNIT)) if self.deep else 0

    @property
    def depth(self) -> int:
        """Bits of a sample."""
        return 16 if self.deep else 8

    @property
    def delta(self) -> float:
        """Quantisation step Δ in the range 0 to 1 (8-bit levels / 255)."""
        return step_of_code(self.step)

    @property
    def kept(self) -> float:
        """C, latents kept per block."""
        return self.rate / RATE_UNIT


@dataclass(frozen=True)
class Segment:
    """A run of coding units in one range coder stream."""

    units: int
    payload: bytes


@dataclass(frozen=True)
class File:
    """A whole file. `complete` is false when the bytes ended early (a prefix); what is intact was kept.

    `trailing` is how many bytes follow the end of a file that is whole; they are no part of it.

    An embedded stream is a single segment; there is none if nothing of it is there.

    `lossless` is the lossless element (see `eocodec.coding.lossless.Parameters`), None in other files; `offsets` is the
    packed map of steps (see `eocodec.coding.fineness`), None where the step is the same everywhere; `tables` is the
    element of a 16-bit file that is not lossless (see `eocodec.coding.deep`), `page` that of a page (see
    `eocodec.regions`), None in other files; `shifts` are packed shifts of tables (see `eocodec.coding.shifts`), None
    where there are none.
    """

    header: Header
    alpha: bytes | None
    segments: tuple[Segment, ...]
    complete: bool = True
    damaged: bool = False
    lossless: bytes | None = None
    offsets: bytes | None = None
    tables: bytes | None = None
    page: bytes | None = None
    shifts: bytes | None = None
    trailing: int = 0

    @property
    def delta(self) -> float:
        """Step Δ of the header, range 0 to 1."""
        return self.header.delta

    @property
    def payload(self) -> bytes:
        """The bytes of all segments."""
        return b"".join(s.payload for s in self.segments)


@dataclass(frozen=True)
class Tiny:
    """A file without header and checksum, for placeholders: two bytes, then one range coder stream.

    Arguments:
        number: stands for the model and so for the size of the picture, 1 to 3.
        step: log2 of Δ in 8-bit levels is 1.5 + step / 32; 0 to 255.
        grey: the picture is grey.
        payload: the stream, see `eocodec.coding.flat`.
    """

    number: int
    step: int
    grey: bool
    payload: bytes

    @property
    def step_code(self) -> int:
        """The step as a header's code."""
        return TINY_ORIGIN + TINY_UNIT * self.step

    @property
    def delta(self) -> float:
        """Step Δ, range 0 to 1."""
        return step_of_code(self.step_code)


AnyFile = File | Tiny


def rate_code(rate: float) -> int:
    """The header's code of C, clamped to what two bytes hold."""
    return min(max(round(rate * RATE_UNIT), 0), TOP_CODE)


def tiny_step(delta: float) -> int:
    """The code that a tiny file has for a step Δ (range 0 to 1), clamped to its range."""
    return min(max(round((exact_code(delta) - TINY_ORIGIN) / TINY_UNIT), 0), 255)


def is_tiny(data: bytes) -> bool:
    """Whether bytes look like a tiny file."""
    return 2 <= len(data) <= MAX_TINY and 0 <= data[0] - TINY_TAG < 2 * TINY_NUMBERS


def tiny_from_text(data: bytes) -> bytes:
    """The tiny file in base64 text (standard or URL-safe, padded or not); anything else comes back as it is."""
    if len(data) > 2 * MAX_TINY or data[:1] not in (b"+", b"/", b"-", b"_"):
        return data
    text = data.strip().rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        content = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return data
    return content if is_tiny(content) else data


def parse_tiny(data: bytes) -> Tiny:
    """Take a tiny file apart; it has no checksum, so any payload is accepted.

    Raises:
        FormatError: not a tiny file.
    """
    if not is_tiny(data):
        raise FormatError("not a tiny file")
    tag = data[0] - TINY_TAG
    return Tiny(tag // 2 + 1, data[1], bool(tag & 1), data[2:])


def serialise_tiny(file: Tiny) -> bytes:
    """Bytes of a tiny file: tag and number, step, payload."""
    return bytes([TINY_TAG + 2 * (file.number - 1) + int(file.grey), file.step]) + file.payload


def read_number(data: bytes, at: int = 0) -> tuple[int, int]:
    """A number of at most five bytes in its shortest form, and where it ends (`eocodec.varint`).

    Raises:
        Truncated: the bytes end inside it.
        FormatError: it is longer, or not in its shortest form.
    """
    try:
        return varint.read(data, at)
    except varint.Padded:
        raise FormatError("the file is damaged: a number is not in its shortest form") from None
    except varint.Overlong:
        raise FormatError("the file is damaged: a number is longer than five bytes") from None


class _Short(Exception):
    """The bytes ended inside an element."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise _Short
        piece = self.data[self.at : self.at + n]
        self.at += n
        return piece

    def varint(self) -> int:
        try:
            value, self.at = read_number(self.data, self.at)
        except varint.Truncated:
            raise _Short from None
        return value


def _header_bytes(header: Header, side: bool, lossless: bool = False) -> bytes:
    flags = (FLAG_GREY if header.grey else 0) | (FLAG_SIDE if side else 0)
    flags |= (FLAG_EMBEDDED if header.embedded else 0) | (FLAG_LOSSLESS if lossless else 0)
    flags |= (FLAG_TUNED if header.tuning else 0) | (FLAG_WEBP if header.webp else 0)
    flags |= (FLAG_DEEP if header.deep else 0) | (FLAG_LUMA if header.dropped else 0)
    return b"".join(
        [
            MAGIC,
            bytes([KIND_VERSION if header.kind else VERSION]),
            header.model,
            bytes([flags, header.kind] if header.kind else [flags]),
            varint.write(header.width),
            varint.write(header.height),
            header.rate.to_bytes(2, "little"),
            header.step.to_bytes(2, "little"),
            bytes([header.tuning] if header.tuning else []),
            *(value.to_bytes(2, "little") for value in header.span or ()),
        ]
    )


def _is_webp(alpha: bytes | None) -> bool:
    """Whether transparency is a WebP stream."""
    return alpha is not None and alpha[:1] == bytes([VP8L_SIGNATURE])


def serialise(file: File) -> bytes:
    """Bytes of a file.

    Raises:
        FormatError: a value does not fit its field.
    """
    h = file.header
    if not (1 <= h.width <= MAX_SIDE and 1 <= h.height <= MAX_SIDE and h.width * h.height <= MAX_PIXELS):
        raise FormatError(f"{h.width}x{h.height} pixels is beyond the format's limits")
    if len(h.model) != 4 or not (0 <= h.rate < 65536 and 0 <= h.step < 65536 and 0 <= h.tuning <= MAX_TUNING):
        raise FormatError("a header value does not fit its field")
    if (h.tuning or file.offsets is not None) and (h.embedded or file.lossless is not None):
        raise FormatError("only ordinary files have steps that differ")
    if file.shifts is not None and (h.embedded or h.deep or h.page or file.lossless is not None):
        raise FormatError("only ordinary files have shifts of tables")
    if (file.tables is not None) != (h.deep and file.lossless is None) or (h.deep and (h.embedded or h.tuning)):
        raise FormatError("a file of 16 bits is ordinary or lossless, and all of its steps are the same")
    if h.luma and (not h.grey or h.embedded or file.lossless is not None):
        raise FormatError("only ordinary files of grey pictures can hold luma alone")
    if h.span is not None and (not 0 <= h.span[0] < h.span[1] <= MAX_VALUE or file.tables is None):
        raise FormatError("only ordinary files of 16 bits have a range of values, the least of which comes first")
    if h.axes == 1 and (h.dropped or h.deep != (h.span is not None)):
        raise FormatError("a file of one colour axis has no chroma to drop, and if it has 16 bits a range of values")
    others = h.embedded or h.tuning or h.deep or h.luma or file.lossless is not None or file.offsets is not None
    if (file.page is not None) != h.page or (h.page and others):
        raise FormatError("a page has an exact layer, and nothing of other forms")
    if _is_webp(file.alpha):
        h = replace(h, webp=True)
    every = ((SIDE_ALPHA, file.alpha), (SIDE_OFFSETS, file.offsets), (SIDE_SHIFTS, file.shifts))
    sides = [(kind, content) for kind, content in every if content is not None]
    head = _header_bytes(h, bool(sides), file.lossless is not None)
    out = [head]
    position = 0
    for kind, content in sides:
        element = bytes([kind]) + varint.write(len(content)) + content
        out += [element, checksum_of(head, position, element)]
        position += 1
    if sides:
        out.append(bytes([SIDE_END]))
    for parameters in (file.lossless, file.tables, file.page):
        if parameters is not None:
            element = varint.write(len(parameters)) + parameters
            out += [element, checksum_of(head, position, element)]
            position += 1
    if h.embedded:
        return b"".join([*out, pieces.split(head, position, file.payload)])
    for s in file.segments:
        element = varint.write(s.units) + varint.write(len(s.payload)) + s.payload
        out += [element, checksum_of(head, position, element)]
        position += 1
    return b"".join(out)


def parse(data: bytes, salvage: bool = False) -> File:
    """Parse a file or a prefix of one.

    Arguments:
        data: the bytes.
        salvage: keep the segments before the first damaged one instead of raising.

    Raises:
        FormatError: not an `.eoc` file, a newer version, cut inside the header or a side segment, beyond the limits,
            or (without `salvage`) a segment whose checksum fails.
    """
    if data[:3] != MAGIC[: len(data[:3])] or not data:
        raise UnknownTypeError("not an .eoc file")
    r = _Reader(data)
    try:
        r.take(3)
        version = r.take(1)[0]
        if version not in (VERSION, KIND_VERSION):
            raise FormatError(f"the file has format version {version}; this program reads versions 1 and 2")
        model, flags = r.take(4), r.take(1)[0]
        kind = r.take(1)[0] if version == KIND_VERSION else 0
        if (version == KIND_VERSION and kind not in KIND_FLAGS) or flags & ~KIND_FLAGS.get(kind, KNOWN_FLAGS):
            raise FormatError("the file uses features this program does not know")
        page, axes = kind == PAGE_KIND, 1 if kind in (ONE_AXIS_KIND, DEEP_AXIS_KIND) else 3
        if axes == 1 and not flags & FLAG_GREY:
            raise FormatError("the file is damaged: one colour axis in a file that has colours")
        width, height = r.varint(), r.varint()
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise LimitError(f"the file claims {width}x{height} pixels, beyond the format's limits")
        rate, step = (int.from_bytes(r.take(2), "little") for _ in range(2))
        tuning = r.take(1)[0] if flags & FLAG_TUNED else 0
        if flags & FLAG_TUNED and (not 1 <= tuning <= MAX_TUNING or flags & (FLAG_EMBEDDED | FLAG_LOSSLESS)):
            raise FormatError("the file is damaged: its tuning is out of range")
        span = None
        if kind in (SPAN_KIND, DEEP_AXIS_KIND):
            span = int.from_bytes(r.take(2), "little"), int.from_bytes(r.take(2), "little")
            if not flags & FLAG_DEEP or span[0] >= span[1]:
                raise FormatError("the file is damaged: its range of values cannot be read")
        if flags & FLAG_DEEP and flags & (FLAG_EMBEDDED | FLAG_TUNED):
            raise FormatError("the file is damaged: a file of 16 bits of a form that has none")
        if flags & FLAG_LUMA and (flags & (FLAG_EMBEDDED | FLAG_LOSSLESS) or not flags & FLAG_GREY):
            raise FormatError("the file is damaged: luma alone in a file that has colours")
        head = data[: r.at]
        sides = _sides(r, head) if flags & FLAG_SIDE else {}
        position = len(sides)
        if _is_webp(sides.get(SIDE_ALPHA)) and not flags & FLAG_WEBP:
            raise FormatError("the file is damaged: its transparency is of a kind that its flags do not name")
        lossless: bytes | None = None
        tables: bytes | None = None
        if flags & FLAG_LOSSLESS:
            if step != LOSSLESS_STEP or flags & FLAG_EMBEDDED:
                raise FormatError("the file is damaged: its lossless parameters cannot be read")
            lossless = _element(r, head, position, "lossless parameters")
        elif flags & FLAG_DEEP:
            tables = _element(r, head, position, "choice of tables")
        layer = _element(r, head, position, "exact layer", MAX_PAGE) if page else None
        position += lossless is not None or tables is not None or page
    except _Short:
        raise FormatError("the file is cut off before its first segment") from None
    alpha, offsets, shifts = (sides.get(kind) for kind in (SIDE_ALPHA, SIDE_OFFSETS, SIDE_SHIFTS))
    if page or flags & (FLAG_EMBEDDED | FLAG_LOSSLESS | FLAG_DEEP):
        for kind in sorted(sides.keys() & {SIDE_OFFSETS, SIDE_SHIFTS}):
            raise FormatError(f"the file is damaged: a {SIDES[kind]} in a file that has none")
    every = (FLAG_GREY, FLAG_EMBEDDED, FLAG_WEBP, FLAG_DEEP, FLAG_LUMA)
    grey, embedded, webp, deep, dropped = (bool(flags & flag) for flag in every)
    header = Header(model, width, height, rate, step, grey, embedded, tuning, webp, deep, dropped, page, axes, span)
    if header.embedded:
        if rate or step:
            raise FormatError("the file is damaged: an embedded stream has no rate")
        found = pieces.join(head, position, data[r.at :], salvage)
        stream = (Segment(1, found.payload),) if found.payload else ()
        return File(header, alpha, stream, found.complete, found.damaged, trailing=found.trailing)
    photographs = 0 if layer is None else len(regions.unpack(layer, width, height)[0])
    segments: list[Segment] = []
    complete, damaged, trailing = True, False, 0
    while r.at < len(data):
        start = r.at
        there, most = sum(s.units for s in segments), ORDINARY_UNITS[axes] if lossless is None else LOSSLESS_UNITS
        last = there == (photographs if page else most)
        try:
            units, length = r.varint(), r.varint()
            payload = r.take(length)
            checksum = r.take(4)
        except (_Short, FormatError) as e:
            if last:
                trailing = len(data) - start
            elif isinstance(e, _Short):
                complete = False
            elif not salvage:
                raise
            else:
                damaged = True
            break
        if checksum != checksum_of(head, position, data[start : r.at - 4]):
            if last:
                trailing = len(data) - start
                break
            if not salvage:
                raise FormatError(f"the file is damaged: the checksum of segment {position + 1} does not match")
            damaged = True
            break
        if units < 1:
            raise FormatError("the file is damaged: a segment without coding units")
        if page and units != 1:
            raise FormatError("the file is damaged: a photograph of a page has one coding unit")
        segments.append(Segment(units, payload))
        position += 1
    if lossless is not None and sum(s.units for s in segments) < LOSSLESS_UNITS:
        complete = False
    if len(segments) > photographs and page:
        raise FormatError("the file is damaged: it has more photographs than places for them")
    complete = complete and not damaged and (len(segments) == photographs or not page)
    return File(header, alpha, tuple(segments), complete, damaged, lossless, offsets, tables, layer, shifts, trailing)


def _element(r: _Reader, head: bytes, position: int, what: str, most: int = MAX_LOSSLESS) -> bytes:
    """The content of an element between the sides and the segments; `what` names it in messages.

    Raises:
        FormatError: it is too long, or damaged.
    """
    start, length = r.at, r.varint()
    if length > most:
        raise FormatError(f"the file is damaged: its {what} cannot be read")
    content = r.take(length)
    if r.take(4) != checksum_of(head, position, r.data[start : r.at - 4]):
        raise FormatError(f"the file is damaged: the checksum of its {what} does not match")
    return content


def _sides(r: _Reader, head: bytes) -> dict[int, bytes]:
    """Side segments by kind.

    Raises:
        FormatError: one is unknown, repeated, too long or damaged.
    """
    sides: dict[int, bytes] = {}
    while True:
        start = r.at
        side = r.take(1)[0]
        if side == SIDE_END:
            return sides
        if side not in SIDES or side in sides:
            raise FormatError("the file is damaged: unknown or repeated side segment")
        length = r.varint()
        if length > MAX_SIDE_SEGMENT:
            raise FormatError("the file is damaged: a side segment is too long")
        content = r.take(length)
        if r.take(4) != checksum_of(head, len(sides), r.data[start : r.at - 4]):
            raise FormatError(f"the file is damaged: the checksum of its {SIDES[side]} does not match")
        sides[side] = content


def embedded_size(file: File, length: int) -> int:
    """Bytes of a file with `length` bytes of an embedded stream."""
    return len(serialise(replace(file, segments=()))) + length + 4 * -(-length // pieces.LENGTH)


def embedded_room(file: File, limit: int) -> int:
    """Bytes of an embedded stream that fit into a file of `limit` bytes, or a negative number."""
    room = limit - len(serialise(replace(file, segments=())))
    whole, last = divmod(room, pieces.LENGTH + 4)
    return room if room < 0 else whole * pieces.LENGTH + max(0, last - 4)


def keep_segments(file: File, n: int) -> File:
    """The file with only its first n latent segments."""
    return replace(file, segments=file.segments[:n])


def segment_ends(file: File) -> list[int]:
    """Length in bytes of the file when it ends after its k-th latent segment, k = 0, 1, …"""
    return [len(serialise(keep_segments(file, k))) for k in range(len(file.segments) + 1)]


def to_bytes(file: AnyFile) -> bytes:
    """Bytes of a file of either kind.

    Raises:
        FormatError: a value does not fit its field.
    """
    return serialise_tiny(file) if isinstance(file, Tiny) else serialise(file)


def from_bytes(data: bytes, salvage: bool = False) -> AnyFile:
    """A file of either kind, or a prefix of one; see :func:`parse` and :func:`parse_tiny`.

    Raises:
        FormatError: it is neither.
    """
    return parse_tiny(data) if is_tiny(data) else parse(data, salvage)
