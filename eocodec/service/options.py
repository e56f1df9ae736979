"""Parameters of the routes, checked: in queries and in the fields of forms.

In: words. Out: arguments of the library's functions.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["CompressOptions", "CutOptions", "DecompressOptions", "DenoiseOptions", "NoOptions", "merged"]

Options = TypeVar("Options", bound=BaseModel)


def _level(value: Any) -> Any:
    """A noise level from a query: a number, or "auto"."""
    return value if value is None or value == "auto" else float(value)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(max_length=64, description="name of a model; default: the first")] = None


Level = Annotated[
    str | None,
    Field(pattern=r"^(auto|\d{1,3}(\.\d{1,6})?)$", description="noise level in 8-bit levels, 0 to 255, or auto"),
]
_REGIONS = r"^(-?\d{1,7}(\.\d+)?(,-?\d{1,7}(\.\d+)?){3}(:-?\d(\.\d+)?)?(;|$))+$"
Finite = Field(gt=0, lt=1e12, allow_inf_nan=False)


class CompressOptions(_Options):
    """Parameters of /v1/compress; at most one of rate, bpp, bytes and psnr."""

    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False, description="C, latents a block")] = None
    bpp: Annotated[float | None, Finite] = None
    bytes: Annotated[int | None, Field(gt=0, lt=1 << 40)] = None
    psnr: Annotated[float | None, Finite] = None
    denoise: Level = None
    progressive: bool = False
    lossless: bool = False
    tiny: bool = False
    resize: bool = False
    tune: Annotated[Literal["eye", "psnr"] | None, Field(description="what the steps follow")] = None
    focus: Annotated[
        str | None,
        Field(
            pattern=_REGIONS,
            max_length=1000,
            description="regions that matter, x,y,width,height[:octaves] in pixels, several with semicolons",
        ),
    ] = None
    measure: Annotated[bool, Field(description="decode and say the PSNR")] = False

    @model_validator(mode="after")
    def _one_target(self) -> "CompressOptions":
        if sum(t is not None for t in (self.rate, self.bpp, self.bytes, self.psnr)) > 1:
            raise ValueError("give only one of rate, bpp, bytes and psnr")
        return self

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.codec.compress_picture`."""
        given = self.model_dump()
        given["max_bytes"] = given.pop("bytes")
        given["denoise"] = _level(given["denoise"])
        given["model"] = given["model"] or ("face64" if self.tiny else default)
        if self.focus is not None:
            regions = [r.replace(":", ",").split(",") for r in self.focus.rstrip(";").split(";")]
            given["focus"] = [[float(v) for v in r] for r in regions]
        return given


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


class CutOptions(BaseModel):
    """Which part of a stored image is wanted."""

    model_config = ConfigDict(extra="forbid")

    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False, description="only the first C latents")] = (
        None
    )
    bytes: Annotated[int | None, Field(gt=0, lt=1 << 40, description="at most so many bytes")] = None

    @model_validator(mode="after")
    def _one_target(self) -> "CutOptions":
        if self.rate is not None and self.bytes is not None:
            raise ValueError("give only one of rate and bytes")
        return self


def merged(options: Options, fields: dict[str, str]) -> Options:
    """Options of a query with those of a form.

    Raises:
        ValidationError: a field that is unknown or out of range.
    """
    if not fields:
        return options
    return type(options).model_validate({**options.model_dump(exclude_unset=True), **fields})
