"""Stage embed: examples and CLIP -> features of images, questions and answers."""

from lever_plus.config.base import Count, Section
from lever_plus.config.features import EmbedParams
from lever_plus.data.examples import read_splits
from lever_plus.features.embeddings import embed_examples
from lever_plus.features.encoder import ClipEncoder
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.vlm import found_model


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    threads: Count
    embed: EmbedParams


def run(settings: Settings, paths: Paths) -> Outcome:
    """Encode every example of every split."""
    use_threads(settings.threads)
    splits, embed = read_splits(paths.prepare, paths.root), settings.embed
    path = found_model(embed.path, paths)
    encoder = ClipEncoder(path, embed.revision, embed.device, embed.batch_size)
    embed_examples(paths.embed, paths.cache / "embed", encoder, splits, embed.variance)
    return Outcome(f"{sum(map(len, splits.values()))} examples embedded in {paths.embed}")
