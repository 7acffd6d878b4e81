"""Stage in_context: what the VLM reads from demonstrations -> metrics/in_context.json."""

from typing import Annotated

from lever_plus.config.base import Section
from lever_plus.config.in_context import InContextParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import read_splits
from lever_plus.house_words.maker import read_meanings
from lever_plus.house_words.probe import in_context_table
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.vlm import open_vlm
from lever_plus.vlm.store.cached import StoredVlm


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    seed: int
    in_context: InContextParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    source: Annotated[str, From("data.source.kind")]


def run(settings: Settings, paths: Paths, vlm: StoredVlm | None = None) -> Outcome:
    """Ask the VLM dev questions after demonstrations whose hidden meanings are known."""
    if settings.source != "embedded":
        write_metrics(paths.in_context, {})
        return Outcome("nothing to ask: only the embedded data have questions with known meanings")
    use_threads(1)  # scoring has worker threads of its own
    splits = read_splits(paths.prepare, paths.root)
    queries, demonstrations = splits["dev"], splits["train"]
    asked = vlm or open_vlm(settings.vlm, settings.scoring, paths)
    asked.check([*queries, *demonstrations])
    table = in_context_table(
        asked,
        queries,
        demonstrations,
        read_meanings(paths.source),
        settings.in_context.probes,
        settings.seed,
    )
    write_metrics(paths.in_context, table)
    rows = "\n".join(f"  {row:<22} {share:6.1%}" for row, share in table.items())
    text = f"share of right answers by what is shown before the question:\n{rows}"
    return Outcome(text, asked.usage)
