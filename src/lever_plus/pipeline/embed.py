"""Stage embed: examples + CLIP -> features of images, questions and answers."""

from lever_plus.config.params import Params
from lever_plus.data.examples import read_splits
from lever_plus.features.encoder import ClipEncoder, embed_examples
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome


def run(params: Params) -> Outcome:
    """Encode every example of every split."""
    use_threads(params.threads)
    splits, settings = read_splits(paths.PREPARE), params.embed
    path = settings.path or str(paths.CLIP)
    encoder = ClipEncoder(path, settings.revision, settings.device, settings.batch_size)
    embed_examples(paths.EMBED, paths.CACHE / "embed", encoder, splits, settings.variance)
    return Outcome(f"{sum(map(len, splits.values()))} examples embedded in {paths.EMBED}")
