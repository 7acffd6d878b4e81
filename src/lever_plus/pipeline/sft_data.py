"""Stage sft_data: VLM and pools -> InfoScore searches for the SFT queries, with all scores."""

from typing import Annotated

from lever_plus.config.base import Count, Section
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.sft import SftDataParams
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import by_id, read_splits
from lever_plus.data.pools import check_pools, read_pools
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.searches import write_searches
from lever_plus.pipeline.vlm import open_vlm
from lever_plus.selectors.infoscore import beam_search
from lever_plus.vlm.store.cached import StoredVlm


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    sft_data: SftDataParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    sft_queries: Annotated[Count, From("data.sft_queries")]


def run(settings: Settings, paths: Paths, vlm: StoredVlm | None = None) -> Outcome:
    """Search for the sequences with the best InfoScore for every SFT query; keep every score."""
    splits, pools = read_splits(paths.prepare, paths.root), read_pools(paths.pools)
    check_pools(pools, splits, paths.pools)
    examples, queries = by_id(splits), splits["train"][: settings.sft_queries]
    vlm = vlm or open_vlm(settings.vlm, settings.scoring, paths)
    vlm.check(examples.values())
    before = vlm.usage.requests
    searched = beam_search(
        vlm,
        [(query.query, query.answer) for query in queries],
        [[examples[i] for i in pools.of(query.question_id)] for query in queries],
        shots=settings.sft_data.shots,
        beam=settings.sft_data.beam,
    )
    ids = (query.question_id for query in queries)
    searches = dict(zip(ids, searched.scored, strict=True))
    write_searches(paths.searches, searches, vlm.identity, pools)
    requests = vlm.usage.requests - before
    write_metrics(paths.metrics / "sft_data.json", {"vlm_requests": requests})
    count = sum(len(each.candidates) for scored in searched.scored for each in scored)
    return Outcome(f"{len(queries)} queries, {count} scores in {paths.searches}", vlm.usage)
