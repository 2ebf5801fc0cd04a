"""A report as one page of HTML without scripts, styles or pictures from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from astropy.table import Table

from lensdeblend.evaluation.readable import cells, heading, is_number

__all__ = ["page"]

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 84em; padding: 0 1em; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; }
th, td { padding: 0.15em 0.8em; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #888; }
tbody tr:nth-child(even) { background: #f3f3f3; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; }
figure { margin: 0 0 1.5em; }
figure img { max-width: 100%; }
"""


def page(
    title: str, notes: Sequence[str], tables: Mapping[str, Table], drawn: Sequence[tuple[str, bytes]] | None, *,
    pictured: str = "Best, median and worst",
) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
    notes : sequence of str
    tables : mapping of str to `~astropy.table.Table`
        By heading.
    drawn : sequence of (str, bytes) or None
        Captions with their PNG; None where no pictures were wanted.
    pictured : str
        Their heading.
    """
    parts = [
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>", "</head>", "<body>", f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(note)}</p>" for note in notes),
    ]
    for name, table in tables.items():
        parts += [f"<h2>{escape(name)}</h2>", *_table(table)]
    if drawn is not None:
        parts += [f"<h2>{escape(pictured)}</h2>", *_figures(drawn)]
    return "\n".join([*parts, "</body>", "</html>", ""])


def _table(table: Table) -> Iterator[str]:
    if not len(table):
        yield "<p>none</p>"
        return
    kinds = [' class="number"' if is_number(table, name) else "" for name in table.colnames]
    yield '<div class="scroll"><table>'
    names = "".join(f'<th scope="col"{kind}>{escape(heading(name))}</th>' for name, kind in zip(table.colnames, kinds))
    yield f"<thead><tr>{names}</tr></thead>"
    yield "<tbody>"
    for row in cells(table):
        yield "<tr>" + "".join(f"<td{kind}>{escape(text)}</td>" for text, kind in zip(row, kinds)) + "</tr>"
    yield "</tbody></table></div>"


def _figures(drawn: Sequence[tuple[str, bytes]]) -> Iterator[str]:
    if not drawn:
        yield "<p>none: no method gave an answer</p>"
    for caption, png in drawn:
        yield (
            f'<figure><figcaption>{escape(caption)}</figcaption>'
            f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(caption)}"></figure>'
        )
