"""`eocodec serve`."""

import ipaddress
import math
import os
import re
from pathlib import Path

import click

from eocodec_cli import files


def _loopback(host: str) -> bool:
    """Whether an address is only reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _keys(file: str | None, variable: str = "EOCODEC_API_KEYS", what: str = "an API key") -> tuple[str, ...]:
    """Keys of a file, one a line, or of the environment, separated by commas."""
    if file is None:
        found = os.environ.get(variable, "").split(",")
    else:
        lines = files.read_bytes(file).decode("utf-8", "replace").splitlines()
        found = [re.split(r"(?:^|\s)#", line)[0] for line in lines]
    keys = tuple(k.strip() for k in found if k.strip())
    if not all(len(k) >= 16 and re.fullmatch(r"[!-~]+", k) for k in keys):
        raise click.UsageError(f"{what} has at least 16 characters: letters, digits, signs of ASCII, no spaces")
    if file is not None and not keys:
        raise click.UsageError(f"{file} holds no key; {what} is a line of its own")
    return keys


def _finite(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("must be finite.")
    return value


def _origins(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers state them: a scheme, a host, a port if it is not the usual one, and no more."""
    for value in values:
        if value not in ("*", "null") and not re.fullmatch(r"https?://[a-z0-9.\[\]:_-]+", value):
            raise click.BadParameter(f"{value!r} is no origin such as https://example.org: no path, no capitals.")
    return values


def _presets(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Queries by name, checked as if they came."""
    found = dict(v.partition("=")[::2] for v in values)
    for name, query in found.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or not query:
            raise click.BadParameter(f"{name!r} is no name with a query: write thumb='width=200&fit=cover'.")
    return found


def _sources(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]+/(\S*/)?", value):
            raise click.BadParameter(f"{value!r} is no folder's URL, such as https://example.org/pictures/.")
    return values


def _root_path(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
        raise click.BadParameter("begins with a slash and ends without one, such as /pictures.")
    return value


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0: a free one.")
@click.option("--model", "models", multiple=True, metavar="NAME|PATH", help="Models to serve; default: all installed.")
@files.device_option
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that work on pictures; default: one per core.")
@click.option("--threads", type=click.IntRange(min=0), default=1, show_default=True, help="Threads of each process.")
@click.option("--worker-memory", type=click.IntRange(0, 1 << 20), default=1024, show_default=True, metavar="MIB",
              help="A process that keeps more after a request is replaced; 0: none is.")  # fmt: skip
@click.option("--queue", type=click.IntRange(0, 10000), default=16, show_default=True,
              help="Requests that may wait; further ones get 503.")  # fmt: skip
@click.option(
    "--max-body",
    type=click.FloatRange(0, 1 << 20, min_open=True),
    callback=_finite,
    default=64,
    show_default=True,
    metavar="MIB",
    help="Largest body.",
)
@click.option("--max-pixels", type=click.IntRange(1, 1 << 28), default=1 << 25, show_default=True,
              help="Largest picture.")  # fmt: skip
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400, min_open=True),
    callback=_finite,
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Longest work on a request; pictures of the largest size need about so much.",
)
@click.option(
    "--upload-timeout",
    type=click.FloatRange(0, 86400, min_open=True),
    callback=_finite,
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for a body to arrive.",
)
@click.option("--store", metavar="DIR|URL", help="Folder or fsspec URL for /v1/images.")
@click.option("--api-key-file", metavar="FILE", help="API keys, one a line; or EOCODEC_API_KEYS, with commas.")
@click.option("--public-read", is_flag=True, help="Stored images can be read without a key.")
@click.option("--cache-seconds", type=click.IntRange(min=0), default=60, show_default=True,
              help="How long stored images may be cached without asking again.")  # fmt: skip
@click.option("--write-timeout", type=click.FloatRange(0, 86400, min_open=True), callback=_finite, default=30,
              show_default=True, metavar="SECONDS", help="Longest time for a client to read 64 KiB.")  # fmt: skip
@click.option("--cache", type=click.FloatRange(0, 1 << 20), callback=_finite, default=256, show_default=True,
              metavar="MIB", help="Disk for pictures that were made of stored images.")  # fmt: skip
@click.option("--preset", "presets", multiple=True, callback=_presets, metavar="NAME=QUERY",
              help="A name for parameters: thumb='width=200&height=200&fit=cover'.")  # fmt: skip
@click.option("--signing-key-file", metavar="FILE",
              help="Keys of signed URLs, one a line; or EOCODEC_SIGNING_KEYS.")  # fmt: skip
@click.option("--allow-source", "sources", multiple=True, callback=_sources, metavar="URL",
              help="Pictures may be fetched from below this URL (/v1/remote).")  # fmt: skip
@click.option("--cors", "origins", multiple=True, callback=_origins, metavar="ORIGIN",
              help="Another site whose pages may use the service, such as https://example.org; '*': all.")  # fmt: skip
@click.option("--root-path", default="", callback=_root_path, metavar="PATH",
              help="Prefix under which a proxy offers the service, and which it takes off.")  # fmt: skip
@click.option("--proxy", "proxies", multiple=True, metavar="ADDRESS",
              help="Proxy whose X-Forwarded-For is believed.")  # fmt: skip
@click.option("--grace", type=click.FloatRange(1, 86400), callback=_finite, default=8, show_default=True,
              metavar="SECONDS", help="Time for running requests to finish at the end.")  # fmt: skip
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
              show_default=True, help="What is logged.")  # fmt: skip
def command(
    host: str,
    port: int,
    models: tuple[str, ...],
    device: str,
    workers: int | None,
    threads: int,
    worker_memory: int,
    queue: int,
    max_body: float,
    max_pixels: int,
    timeout: float,
    upload_timeout: float,
    store: str | None,
    api_key_file: str | None,
    public_read: bool,
    cache_seconds: int,
    write_timeout: float,
    cache: float,
    presets: dict[str, str],
    signing_key_file: str | None,
    sources: tuple[str, ...],
    origins: tuple[str, ...],
    root_path: str,
    proxies: tuple[str, ...],
    grace: float,
    log_level: str,
) -> None:
    """Serve compression, decompression and denoising over HTTP, with a page to try them.

    Needs pip install 'eocodec[serve]'. Logs are JSON lines on standard error. Ctrl-C or SIGTERM lets running requests
    finish. Without API keys it only listens on this machine's own addresses.

    \b
    Examples:
      eocodec serve
      eocodec serve --store images/ --port 8080
      EOCODEC_API_KEYS=$(openssl rand -hex 16) eocodec serve --host 0.0.0.0 --store s3://bucket/images
      curl --data-binary @photo.jpg 'http://127.0.0.1:8000/v1/compress?bpp=0.5' -o photo.eoc
      curl --data-binary @photo.eoc http://127.0.0.1:8000/v1/decompress -o photo.png
      curl -F image=@night.jpg -F sigma=auto http://127.0.0.1:8000/v1/denoise -o clean.png
    """
    from eocodec.cores import cores
    from eocodec.errors import EocodecError, ModelError
    from eocodec.model.library import installed_models, load_model, shipped_models

    keys = _keys(api_key_file)
    signing = _keys(signing_key_file, "EOCODEC_SIGNING_KEYS", "a signing key")
    if store == "":
        raise click.UsageError("--store needs a folder or a URL")
    if not keys and not _loopback(host):
        raise click.UsageError(f"--host {host} can be reached from other machines: give API keys (--api-key-file)")
    try:
        from eocodec.service.app import check_presets, create_app
        from eocodec.service.server import run
        from eocodec.service.settings import Settings
    except ImportError as e:
        raise EocodecError(f"the service needs more packages: pip install 'eocodec[serve]' ({e})") from None
    check_presets(presets)
    known = installed_models()
    names = models or tuple(sorted(known, key=lambda n: n != "photo"))
    loaded, unusable = [], {}
    for n in names:
        try:
            loaded.append(load_model(n, 1, device="cpu"))
        except ModelError as e:
            if models or n in shipped_models():
                raise
            unusable[n] = str(e)
    names = tuple(n for n in names if n not in unusable)
    paths = {m.name: str(known.get(n, Path(n).resolve())) for m, n in zip(loaded, names, strict=True)}
    if len(paths) < len(names):
        raise EocodecError("two of the models have the same name")
    settings = Settings(
        models=paths,
        workers=workers or cores(),
        queue=queue,
        threads=threads,
        device=device,
        max_body=int(max_body * (1 << 20)),
        max_pixels=max_pixels,
        timeout=timeout,
        upload_timeout=upload_timeout,
        store=store,
        keys=keys,
        public_read=public_read,
        cache_seconds=cache_seconds,
        origins=origins,
        presets=presets,
        signing=signing,
        sources=sources,
        cache=int(cache * (1 << 20)),
        write_timeout=write_timeout,
        worker_memory=worker_memory << 20,
        root_path=root_path,
        hosts=(host,),
        unusable=unusable,
    )
    run(create_app(settings, loaded), host, port, grace, log_level, ",".join(proxies))
