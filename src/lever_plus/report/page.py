"""The report: one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;max-width:62rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;white-space:nowrap}
th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}
svg{max-width:100%;height:auto}p.note{color:#555}
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        title: Heading.
        lead: First paragraph, plain text.
        sections: {heading: HTML}.
    """
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in sections.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><h1>{escape(title)}</h1><p class="note">{escape(lead)}</p>{body}</body></html>\n'
    )
