"""Stage sft_data: VLM + pools -> InfoScore sequences of the SFT queries."""

import json
from typing import Annotated

from lever_plus.config.base import Count, Section
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.sft import SftDataParams
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import by_id, read_splits
from lever_plus.data.pools import read_pools
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.vlm import open_vlm
from lever_plus.selectors.infoscore import ScoredSequence, beam_search
from lever_plus.vlm.store.cached import StoredVlm


class Settings(Section):
    """What the stage reads of params.yaml."""

    sft_data: SftDataParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    sft_queries: Annotated[Count, From("data.sft_queries")]


def run(settings: Settings, paths: Paths, vlm: StoredVlm | None = None) -> Outcome:
    """Search the best sequences of every SFT query by InfoScore."""
    splits, pools = read_splits(paths.prepare, paths.root), read_pools(paths.pools)
    examples, queries = by_id(splits), splits["train"][: settings.sft_queries]
    vlm = vlm or open_vlm(settings.vlm, settings.scoring, paths)
    vlm.check(examples.values())
    shots, beam = settings.sft_data.shots, settings.sft_data.beam
    steps = beam_search(
        vlm,
        [(query.query, query.answer) for query in queries],
        [[examples[i] for i in pools.of(query.question_id)] for query in queries],
        shots=shots,
        beam=beam,
    )
    lines = [
        _line(query.question_id, [found.by_id for found in sequences])
        for query, sequences in zip(queries, steps[-1], strict=True)
    ]
    path = paths.sequences
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    meta = {"vlm": vlm.identity, "pool_sha256": pools.sha256}
    text = json.dumps(meta, indent=2, sort_keys=True) + "\n"
    path.with_name("meta.json").write_text(text, encoding="utf-8", newline="\n")
    return Outcome(f"{len(queries)} queries x {beam} sequences in {path}", vlm.usage)


def _line(query: int, sequences: list[ScoredSequence]) -> str:
    beams = [{"pointer": s.pointer, "info_score": round(s.info_score, 6)} for s in sequences]
    return json.dumps({"query_id": query, "beams": beams}, sort_keys=True) + "\n"
