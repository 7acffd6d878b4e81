"""The report: one self-contained HTML page, its pieces, its style and its script."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from lever_plus.report.plots import on_page


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """Return an HTML table that scrolls by itself where it is wider than the page.

    Args:
        header: Heads of the columns.
        rows: Cells, plain text.
        words: Whether cells are sentences rather than numbers: they are aligned left, and wrap.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    style = ' class="words"' if words else ""
    return f'<div class="scroll" tabindex="0"><table{style}>{inner}</table></div>'


def note(text: str) -> str:
    """Return a paragraph that explains what is beside it."""
    return f'<p class="note">{escape(text)}</p>'


def bullets(sentences: Sequence[str]) -> str:
    """Return a list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def folded(label: str, content: str) -> str:
    """Return HTML that opens when its label is pressed, and is open in print."""
    return f"<details><summary>{escape(label)}</summary>{content}</details>"


def parts(sections: Mapping[str, str]) -> str:
    """Return the parts of a section, each folded under its heading.

    Args:
        sections: {heading: HTML}; empty ones are left out.
    """
    return "".join(
        f'<details class="part"><summary><h3>{escape(name)}</h3></summary>{html}</details>'
        for name, html in sections.items()
        if html
    )


def plot(svg: str) -> str:
    """Return one plot, in the colours of the page."""
    return f'<div class="plot">{on_page(svg)}</div>'


def figures(svgs: Sequence[str]) -> str:
    """Return plots in the colours of the page, side by side where there is room."""
    return '<div class="plots">' + "".join(f"<div>{on_page(svg)}</div>" for svg in svgs) + "</div>"


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        title: Heading.
        lead: First paragraph, plain text.
        sections: {heading: HTML}; empty ones are left out.
    """
    style, script = (
        files("lever_plus.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    shown = [(f"s{i}", name, html) for i, (name, html) in enumerate(sections.items()) if html]
    body = "".join(
        f'<section><h2 id="{key}">{escape(name)}</h2>{html}</section>' for key, name, html in shown
    )
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in shown)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f'<body><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><nav>{links}</nav>{body}'
        f"<script>{script}</script></body></html>\n"
    )
