"""Pages of a report: one for every subject and one that compares them; HTML that needs nothing beside it."""

import base64
import html
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from eocodec.lab.data.dataset import Dataset
from eocodec.lab.measures.alignment import similarity
from eocodec.lab.measures.heterogeneity import quantile_grid
from eocodec.lab.report.comparison import comparison_rows
from eocodec.lab.report.plots import bars, heat_map
from eocodec.lab.subjects.subject import Core, Subject

__all__ = ["index_page", "strips", "subject_page"]

Floats = npt.NDArray[np.float64]

STRIP = 9  # pictures in a traversal
ROWS = 8  # latents whose traversals are shown
EDGE = 64  # pixels of a picture on the page, at least

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #1a1a1a;
  background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd;
  text-align: right; white-space: nowrap } th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: #fff } .wide { overflow-x: auto }
svg { max-width: 100%; height: auto } img { image-rendering: pixelated; max-width: 100% } p { max-width: 48rem }
"""


def _page(title: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def _table(head: list[str], rows: list[list[str]], links: dict[str, str]) -> str:
    def cell(text: str, first: bool) -> str:
        shown = html.escape(text)
        return (
            f'<td><a href="{html.escape(links[text])}">{shown}</a></td>'
            if first and text in links
            else (f"<td>{shown}</td>")
        )

    lines = ["<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(cell(c, k == 0) for k, c in enumerate(row)) + "</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def index_page(name: str, table: dict[str, Any], links: dict[str, str]) -> str:
    """The page that compares subjects.

    Arguments:
        name: of the set.
        table: what `comparison` gave.
        links: pages of the subjects.
    """
    head, rows = comparison_rows(table)
    return _page(
        f"Lab: {name}",
        [
            f"<h1>Latents compared on {html.escape(name)}</h1>",
            "<p>Mean ± standard deviation over runs. Indices of separation and the supervised measures: 1 is best; "
            "c, MTC and TC: 0 is independence. The pages of the subjects show where the figures come from.</p>",
            _table(head, rows, links),
        ],
    )


def subject_page(result: dict[str, Any], codes: list[Floats], subject: Subject, data: Dataset) -> str:
    """The page of one subject.

    Arguments:
        result: what `over_runs` gave; the run shown is its reference.
        codes: of every run, `(n, K)`.
        subject: of the reference run.
        data: the set.
    """
    run = result["runs"][result["reference"]]
    fvh, dbsr = run["fvh"], run["dbsr"]
    informative = np.array(fvh["informative"], bool)
    rank = np.argsort(~informative, kind="stable")  # informative latents first
    names = [f"z{k + 1}" for k in rank]
    features = list(data.feature_names)

    def picked(values: Any) -> Floats:
        return np.array(values, np.float64)[rank]

    gaps = run["gaps"]
    parts = [
        f"<h1>{html.escape(result['name'])} on {html.escape(data.name)}</h1>",
        _facts(result, run),
        "<h2>Explained entropy</h2>",
        bars({"H": picked(run["spectrum"]["entropy"])}, names, "H, nats"),
        "<h2>FVH: variance of features that moving one latent makes</h2>",
        heat_map(picked(fvh["variance"]), names, features, "explained variance", top=1.0),
        "<h2>DBSR: features regressed on latents, row-sparse part B and element-sparse part S</h2>",
        heat_map(picked(dbsr["block"]), names, features, "B", symmetric=True),
        heat_map(picked(dbsr["element"]), names, features, "S", symmetric=True),
        f"<h2>Information about x, noise {gaps['noise']:g}</h2>",
        bars(
            {"given the others": picked(gaps["given_others"]), "alone": picked(gaps["alone"]), "c": picked(gaps["c"])},
            names,
            "nats",
        ),
        "<h2>MPMI: information that decoder directions share</h2>",
        heat_map(picked(run["mpmi"])[:, rank], names, names, "nats"),
    ]
    if data.factors is not None and "supervised" in run:
        parts += [
            "<h2>Importance for the true factors</h2>",
            heat_map(picked(run["supervised"]["importance"]), names, data.factors.names, "importance"),
        ]
    if len(codes) > 1:
        other = 0 if result["reference"] else 1
        matrix = similarity(codes[result["reference"]], codes[other])[rank]
        parts += [
            f"<h2>GAS: absolute correlation with the latents of seed {result['runs'][other]['seed']}</h2>",
            heat_map(matrix, names, [f"z{k + 1}" for k in range(matrix.shape[1])], "|corr|", top=1.0),
            f"<h2>MCPMI with the same run: {result['same_pairs']} of {min(matrix.shape)} pairs as by correlation</h2>",
            heat_map(picked(result["mcpmi"]), names, [f"z{k + 1}" for k in range(matrix.shape[1])], "nats"),
        ]
    if data.pictures:
        sheet = strips(subject, data, len(run["kl"]), rank[:ROWS])
        parts += [
            "<h2>Traversals, 2.5 % to 97.5 % of every latent, of one held-out picture</h2>",
            f'<img alt="traversals of {", ".join(names[:ROWS])}" src="data:image/png;base64,{sheet}">',
        ]
    return _page(f"{result['name']} on {data.name}", parts)


def _facts(result: dict[str, Any], run: dict[str, Any]) -> str:
    rows = [
        ["seed shown, of runs", f"{run['seed']}, of {len(result['runs'])}"],
        ["informative latents", str(run["fvh"]["count"])],
        ["FVH-LSSI, LSDI", f"{run['fvh']['lssi']:.3f}, {run['fvh']['lsdi']:.3f}"],
        ["DBSR-LSSI", f"{run['dbsr']['lssi']:.3f}"],
        ["LSSI of the mean of aligned runs", f"{result['mean_lssi']:.3f}"],
        ["GAS", "–" if result["gas"] is None else f"{result['gas']:.3f}"],
        ["c: mean, largest, sum, nats", "{mean:.3f}, {max:.3f}, {sum:.3f}".format(**run["gaps"])],
        ["TC(z | x), DTC(z | x), nats", "{tc:.3f}, {dtc:.3f}".format(**run["gaps"])],
        ["MTC, nats", f"{run['spectrum']['mtc']:.3f}"],
        ["largest M2", f"{max(run['variation']):.3f}"],
    ]
    rows += [
        [key.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value)]
        for key, value in run.get("supervised", {}).items()
        if key != "importance" and value is not None
    ]
    return _table(["measure", "value"], rows, {})


def strips(subject: Subject, data: Dataset, latents: int, rows: npt.NDArray[np.intp]) -> str:
    """Traversals of some latents of one held-out picture, a row each: a PNG in base64.

    Arguments:
        subject: the whole subject.
        data: a set of pictures.
        latents: of the core that was measured.
        rows: which of its latents.
    """
    core = Core.top(subject, data.held_out, latents)
    codes = core.encode(data.held_out).mean
    grid = quantile_grid(codes, STRIP)
    moved = np.repeat(codes[:1], STRIP * len(rows), axis=0)
    for place, k in enumerate(rows):
        moved[place * STRIP : (place + 1) * STRIP, k] = grid[:, k]
    pictures = np.clip(core.decode(moved), 0, 1)
    channels, height, width = pictures.shape[1:]
    cells = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1.0)
    sheet = cells.reshape(len(rows), STRIP, channels, height + 2, width + 2).transpose(0, 3, 1, 4, 2)
    levels = np.rint(255 * sheet.reshape(len(rows) * (height + 2), STRIP * (width + 2), channels)).astype(np.uint8)
    image = Image.fromarray(levels if channels == 3 else levels[:, :, 0])
    factor = max(1, EDGE // height)
    out = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
