"""Parameters of the routes, checked: in queries and in the fields of forms.

In: words. Out: arguments of the library's functions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eocodec.errors import EocodecError
from eocodec.service.images import NAME

__all__ = [
    "CompressOptions",
    "DecompressOptions",
    "DenoiseOptions",
    "EditOptions",
    "EstimateOptions",
    "FileOptions",
    "ImageOptions",
    "ListOptions",
    "NoOptions",
    "PreviewOptions",
    "RivalOptions",
    "ViewOptions",
    "check_once",
    "complaint",
    "merged",
]

Options = TypeVar("Options", bound=BaseModel)

LARGEST_EDGE = 16384  # pixels of a picture that is made
CODEC = r"^[a-z0-9]{1,16}$"
CROP = r"^\d{1,6},\d{1,6},[1-9]\d{0,5},[1-9]\d{0,5}$"
LEVEL = r"^(auto|\d{1,3}(\.\d{1,6})?)$"
REGIONS = r"^(-?\d{1,7}(\.\d+)?(,-?\d{1,7}(\.\d+)?){3}(:-?\d(\.\d+)?)?(;|$))+$"
STEPS = r"^([A-Za-z][A-Za-z0-9 _-]{0,63}=[+-]?\d(\.\d{1,6})?(;|$))+$"
SHAPES = {  # patterns, and what is said where something does not have them
    CODEC: "a codec is a word such as avif, webp or jpeg",
    CROP: "a crop is left,top,width,height in whole pixels",
    LEVEL: "a noise level is a number from 0 to 255 with at most six decimals, or auto",
    NAME: "a name has 1 to 128 ASCII letters, digits, dots, hyphens and underscores, the first a letter or digit",
    REGIONS: "regions are x,y,width,height or x,y,width,height:octaves in pixels, several with semicolons",
    STEPS: "paths are name=amount with at most six decimals, several with semicolons",
}


def _level(value: Any) -> Any:
    """A noise level from a query: a number, or "auto"."""
    return value if value is None or value == "auto" else float(value)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(max_length=64, description="name of a model; default: the first")] = None


Level = Annotated[
    str | None,
    Field(pattern=LEVEL, description="noise level in 8-bit levels, 0 to 255, or auto"),
]
Finite = Field(gt=0, lt=1e12, allow_inf_nan=False)


class _Tuned(_Options):
    """Parameters of steps."""

    tune: Annotated[Literal["eye", "psnr"] | None, Field(description="what the steps follow")] = None
    focus: Annotated[
        str | None,
        Field(
            pattern=REGIONS,
            max_length=1000,
            description="regions that matter, x,y,width,height[:octaves] in pixels, several with semicolons",
        ),
    ] = None

    def regions(self) -> list[list[float]] | None:
        """The argument `focus` of :func:`eocodec.codec.compress`."""
        if self.focus is None:
            return None
        return [[float(v) for v in r.replace(":", ",").split(",")] for r in self.focus.rstrip(";").split(";")]


class FileOptions(_Tuned):
    """Parameters of a file; at most one of rate, bpp, bytes and psnr."""

    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False, description="C, latents a block")] = None
    bpp: Annotated[float | None, Finite] = None
    bytes: Annotated[int | None, Field(gt=0, lt=1 << 40)] = None
    psnr: Annotated[float | None, Finite] = None
    denoise: Level = None
    progressive: bool = False
    lossless: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> "FileOptions":
        if sum(t is not None for t in (self.rate, self.bpp, self.bytes, self.psnr)) > 1:
            raise ValueError("give only one of rate, bpp, bytes and psnr")
        return self

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.codec.compress_picture`."""
        given = self.model_dump()
        given["max_bytes"] = given.pop("bytes")
        given["denoise"] = _level(given["denoise"])
        given["model"] = given["model"] or default
        given["focus"] = self.regions()
        return given


class ViewOptions(FileOptions):
    """Parameters of the picture that a file decodes to."""

    scores: Annotated[bool, Field(description="also say the SSIMULACRA2, which takes a while")] = False

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.codec.compress_picture`."""
        given = super().arguments(default)
        del given["scores"]
        return given


class RivalOptions(BaseModel):
    """Parameters of another codec's file."""

    model_config = ConfigDict(extra="forbid")

    codec: Annotated[str, Field(pattern=CODEC, description="avif, webp, jpeg; jxl where it is installed")]
    bytes: Annotated[int, Field(gt=0, lt=1 << 40, description="at most so many")]


class CompressOptions(FileOptions):
    """Parameters of /v1/compress."""

    tiny: bool = False
    resize: bool = False
    measure: Annotated[bool, Field(description="decode and say the PSNR")] = False

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.codec.compress_picture`."""
        return super().arguments("face64" if self.tiny else default)


class PreviewOptions(_Tuned):
    """Parameters of a preview."""

    rate: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False, description="C, latents a block")]

    def arguments(self, default: str) -> tuple[str, float, str | None, list[list[float]] | None]:
        """Model, C, tuning and regions."""
        return self.model or default, self.rate, self.tune, self.regions()


class EstimateOptions(_Tuned):
    """Parameters of an estimate."""

    rate: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False, description="C, latents a block")]
    denoise: Level = None

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.codec.compress_picture`."""
        given = FileOptions.model_validate(self.model_dump(exclude_unset=True))
        return given.arguments(default)


class DecompressOptions(BaseModel):
    """Parameters of /v1/decompress."""

    model_config = ConfigDict(extra="forbid")

    salvage: Annotated[bool, Field(description="decode what comes before the damage")] = False


class NoOptions(BaseModel):
    """There are no parameters."""

    model_config = ConfigDict(extra="forbid")


class DenoiseOptions(_Options):
    """Parameters of /v1/denoise."""

    sigma: Level = "auto"
    method: Literal["auto", "net", "shrink", "drop"] = "auto"
    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False)] = None
    strength: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = 1.0
    shifts: Annotated[int | None, Field(ge=1, le=8)] = None

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.denoising.denoise_picture`."""
        given = self.model_dump()
        return {**given, "sigma": _level(given["sigma"]), "model": given["model"] or default}


class EditOptions(BaseModel):
    """Parameters of /v1/edit."""

    model_config = ConfigDict(extra="forbid")

    paths: Annotated[
        str | None,
        Field(pattern=STEPS, max_length=1000, description="name=amount of each path, several with semicolons"),
    ] = None
    share: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="how far the result goes to the form's second file")
    ] = 0.0
    format: Annotated[
        Literal["picture", "eoc"], Field(description="eoc: a file of the size that the first one has")
    ] = "picture"

    def arguments(self) -> dict[str, Any]:
        """Arguments of :func:`eocodec.service.work.edit`.

        Raises:
            EocodecError: nothing says what is to change.
        """
        if not {"paths", "share"} & self.model_fields_set:
            raise EocodecError("give paths, or the share of a second face")
        amounts: dict[str, float] = {}
        for step in (self.paths or "").rstrip(";").split(";"):
            name, _, amount = step.partition("=")
            if name:
                amounts[name] = amounts.get(name, 0.0) + float(amount)
        return {"amounts": amounts, "share": self.share, "as_file": self.format == "eoc"}


Cut = tuple[float | None, float | None, int | None]
"""C, latents and bytes of a part of a file; at most one is given."""
Edge = Annotated[int | None, Field(ge=1, le=LARGEST_EDGE, description="pixels, before dpr")]


class ImageOptions(BaseModel):
    """What is wanted of a stored or remote image: a part of the file, or a picture made of it."""

    model_config = ConfigDict(extra="forbid")

    rate: Annotated[
        float | None, Field(ge=1, le=1e6, allow_inf_nan=False, description="of an embedded stream: what C gives")
    ] = None
    latents: Annotated[
        float | None,
        Field(ge=1, le=1e6, allow_inf_nan=False, description="of an ordinary file: the first latents, with their step"),
    ] = None
    bytes: Annotated[int | None, Field(gt=0, lt=1 << 40, description="at most so many bytes")] = None
    format: Annotated[
        Literal["auto", "eoc", "avif", "webp", "jpeg", "png"],
        Field(description="auto: the file, or where a picture is wanted what Accept names"),
    ] = "auto"
    quality: Annotated[int, Field(ge=1, le=100, description="of AVIF, WebP, JPEG; 100: lossless where it can be")] = 80
    width: Edge = None
    height: Edge = None
    fit: Annotated[
        Literal["inside", "cover", "fill"],
        Field(description="inside: not larger than width and height; cover: fills them, cut off; fill: stretched"),
    ] = "inside"
    crop: Annotated[str | None, Field(pattern=CROP, description="left,top,width,height in pixels, before scaling")] = (
        None
    )
    dpr: Annotated[float, Field(ge=0.1, le=8, allow_inf_nan=False, description="device pixels per pixel")] = 1.0
    preset: Annotated[str | None, Field(max_length=64, description="parameters that the service has a name for")] = None
    v: Annotated[str | None, Field(max_length=64, description="any version; nothing depends on it")] = None
    expires: Annotated[int | None, Field(ge=0, description="of a signed URL: seconds since 1970")] = None
    signature: Annotated[str | None, Field(max_length=64, description="of a signed URL, the last parameter")] = None

    @model_validator(mode="after")
    def _one_target(self) -> "ImageOptions":
        if sum(target is not None for target in self.cut) > 1:
            raise ValueError("give only one of rate, latents and bytes")
        if self.format == "eoc" and self.made:
            raise ValueError("a file cannot be cropped or scaled; choose a type of picture")
        return self

    @property
    def cut(self) -> Cut:
        """Which part of the file: C, latents, bytes; nothing for all of it."""
        return self.rate, self.latents, self.bytes

    @property
    def made(self) -> bool:
        """Whether a picture is to be made that is not just the decoded one."""
        return self.width is not None or self.height is not None or self.crop is not None

    def arguments(self) -> dict[str, Any]:
        """Arguments of :func:`eocodec.service.rendering.render`."""
        crop = None if self.crop is None else tuple(int(n) for n in self.crop.split(","))
        edges = [
            None if e is None else max(1, min(LARGEST_EDGE, round(e * self.dpr))) for e in (self.width, self.height)
        ]
        return {"crop": crop, "width": edges[0], "height": edges[1], "fit": self.fit, "quality": self.quality}


class ListOptions(BaseModel):
    """Which of the stored images are listed."""

    model_config = ConfigDict(extra="forbid")

    prefix: Annotated[str, Field(max_length=128, description="of the names")] = ""
    after: Annotated[str, Field(max_length=128, description="the last name of the list before")] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def check_once(names: Iterable[str]) -> None:
    """See that no parameter is given twice.

    Raises:
        EocodecError: one is.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise EocodecError(f"{name[:64]}: is given more than once")


def complaint(error: Mapping[str, Any]) -> str:
    """One sentence for one of pydantic's errors, in which patterns are put in words."""
    place = [str(p)[:64] for p in error["loc"] if p not in ("query", "path", "body")]
    shape = error.get("ctx", {}).get("pattern")
    words = SHAPES[shape] if shape else error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place)}: {words[0].lower()}{words[1:]}" if place else words


def merged(options: Options, fields: dict[str, str]) -> Options:
    """Options of a query with those of a form.

    Raises:
        EocodecError: a parameter is in both.
        ValidationError: a field that is unknown or out of range.
    """
    if not fields:
        return options
    check_once([*options.model_fields_set, *fields])
    return type(options).model_validate({**options.model_dump(exclude_unset=True), **fields})
