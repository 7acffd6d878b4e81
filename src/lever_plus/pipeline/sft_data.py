"""Stage sft_data: VLM + pools -> InfoScore sequences of the SFT queries."""

import json

from lever_plus.config.params import Params
from lever_plus.data.examples import read_splits
from lever_plus.data.pools import read_pools
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.vlm import open_vlm
from lever_plus.selectors.infoscore import ScoredSequence, beam_search


def run(params: Params) -> Outcome:
    """Search the best sequences of every SFT query by InfoScore."""
    settings, splits, pools = params.sft_data, read_splits(paths.PREPARE), read_pools(paths.POOLS)
    queries = [example.question_id for example in splits["train"][: params.data.sft_queries]]
    vlm = open_vlm(params, splits)
    steps = beam_search(vlm, pools, queries, shots=settings.shots, beam=settings.beam)
    lines = [_line(query, steps[-1][query]) for query in queries]
    paths.SEQUENCES.parent.mkdir(parents=True, exist_ok=True)
    paths.SEQUENCES.write_text("".join(lines), encoding="utf-8", newline="\n")
    meta = {"vlm": vlm.identity, "pool_sha256": pools.sha256}
    text = json.dumps(meta, indent=2, sort_keys=True) + "\n"
    paths.SEQUENCES.with_name("meta.json").write_text(text, encoding="utf-8", newline="\n")
    return Outcome(
        f"{len(queries)} queries x {settings.beam} sequences in {paths.SEQUENCES}",
        vlm.usage,
    )


def _line(query: int, sequences: list[ScoredSequence]) -> str:
    beams = [{"pointer": s.pointer, "info_score": round(s.info_score, 6)} for s in sequences]
    return json.dumps({"query_id": query, "beams": beams}, sort_keys=True) + "\n"
