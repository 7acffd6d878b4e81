"""The report: one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def note(text: str) -> str:
    """Return a paragraph beside the results."""
    return f'<p class="note">{escape(text)}</p>'


def bullets(sentences: Sequence[str]) -> str:
    """Return a list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def folded(label: str, content: str) -> str:
    """Return HTML that is open on demand; no script is needed."""
    return f"<details><summary>{escape(label)}</summary>{content}</details>"


def figures(svgs: Sequence[str]) -> str:
    """Return plots side by side where there is room."""
    return '<div class="plots">' + "".join(f"<div>{svg}</div>" for svg in svgs) + "</div>"


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        title: Heading.
        lead: First paragraph, plain text.
        sections: {heading: HTML}; empty ones are left out.
    """
    style = files("lever_plus.report").joinpath("page.css").read_text(encoding="utf-8")
    shown = [(f"s{i}", name, html) for i, (name, html) in enumerate(sections.items()) if html]
    body = "".join(f'<h2 id="{key}">{escape(name)}</h2>{html}' for key, name, html in shown)
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in shown)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><h1>{escape(title)}</h1>{note(lead)}<nav>{links}</nav>{body}</body></html>\n"
    )
