"""Draws docs/pipeline.svg: the stages of dvc.yaml and what each reads of the others.

Run it in the project's folder: python docs/draw_pipeline.py
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any

import networkx as nx
from ruamel.yaml import YAML

TARGET = Path(__file__).with_name("pipeline.svg")
WIDTH, HEIGHT = 330, 62
COLUMN, ROW = WIDTH + 50, HEIGHT + 26
STYLE = """
  text { font-family: sans-serif; font-size: 12px; fill: #57606a }
  .name { font-size: 14px; font-weight: bold; fill: #1f2328 }
  rect { fill: #f6f8fa; stroke: #8c959f }
  path { fill: none; stroke: #8c959f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .name { fill: #f0f6fc } rect { fill: #151b23 }
  }
"""


def place(path: str) -> str:
    """Return the part of an output's path that all seeds share."""
    return "/".join(path.split("/")[:2])


def graph_of(stages: dict[str, Any]) -> nx.DiGraph:
    """Return which stage reads what of which, without the arrows that longer ways imply."""
    writes = {
        place(out): stage
        for stage, entry in stages.items()
        for out in [*entry.get("outs", []), *(next(iter(m)) for m in entry.get("metrics", []))]
    }
    graph = nx.DiGraph(
        (writes[place(dep)], stage)
        for stage, entry in stages.items()
        for dep in entry["deps"]
        if not dep.startswith("src/")
    )
    return nx.transitive_reduction(graph)


def drawn(stages: dict[str, Any]) -> str:
    """Return the picture: a row for every step of the longest way, top to bottom."""
    graph = graph_of(stages)
    places = {
        stage: (column, row)
        for row, generation in enumerate(nx.topological_generations(graph))
        # The stage from which the longest way leads is in the first column.
        for column, stage in enumerate(
            sorted(generation, key=lambda name: -len(nx.descendants(graph, name)))
        )
    }
    columns, rows = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    size = f"{columns * COLUMN - 50 + 20} {rows * ROW - 26 + 20}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 {size}" role="img">',
        "<title>The stages of the pipeline, and what each reads of the others</title>",
        f"<style>{STYLE}</style>",
        '<marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L8,4 L0,8" /></marker>',
        *(arrow(places[before], places[after]) for before, after in sorted(graph.edges)),
        *(line for stage, place in places.items() for line in box(stage, place, stages[stage])),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def arrow(before: tuple[int, int], after: tuple[int, int]) -> str:
    """Return an arrow from one box to a box below it."""
    x1, y1 = before[0] * COLUMN + WIDTH / 2, before[1] * ROW + HEIGHT
    x2, y2 = after[0] * COLUMN + WIDTH / 2, after[1] * ROW
    if before[0] > after[0]:  # back to the first column, beside the rows between
        x2, y2 = after[0] * COLUMN + WIDTH, after[1] * ROW + HEIGHT / 2
        way = f"M{x1:g},{y1:g} V{y2:g} H{x2:g}"
    elif before[0] < after[0]:
        x1, y1 = before[0] * COLUMN + WIDTH, before[1] * ROW + HEIGHT / 2
        way = f"M{x1:g},{y1:g} H{x2:g} V{y2:g}"
    else:
        way = f"M{x1:g},{y1:g} V{y2:g}"
    return f'<path d="{way}" marker-end="url(#end)" />'


def box(stage: str, place: tuple[int, int], entry: dict[str, Any]) -> Iterator[str]:
    """Yield a stage's box with what it does."""
    x, y = place[0] * COLUMN, place[1] * ROW
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" />'
    yield f'<text class="name" x="{x + 12}" y="{y + 20}">{stage}</text>'
    if "matrix" in entry:
        yield f'<text x="{x + WIDTH - 12}" y="{y + 20}" text-anchor="end">once per seed</text>'
    for number, line in enumerate(wrap(entry["desc"], 54)):
        yield f'<text x="{x + 12}" y="{y + 38 + 15 * number}">{escape(line)}</text>'


def picture() -> str:
    """Return the picture of dvc.yaml as it is now."""
    pipeline = (Path(__file__).parent.parent / "dvc.yaml").read_text(encoding="utf-8")
    return drawn(YAML(typ="safe").load(pipeline)["stages"])


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8", newline="\n")
