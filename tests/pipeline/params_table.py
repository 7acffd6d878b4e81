"""Every value of params.yaml: which stage reads it, another value, and where its effect shows."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple


class Leaf(NamedTuple):
    """A setting.

    Attributes:
        stages: Those whose results depend on it, as dvc.yaml names them.
        value: Another valid value.
        shown: Stages that write other files with it, each perhaps with the file's name; or the test
            that shows its effect, where the formula world cannot.
        beside: What else must be set for the value to be valid, or to have an effect.
        why: Why the formula world cannot show it.
    """

    stages: str
    value: Any
    shown: str
    beside: Mapping[str, Any] = MappingProxyType({})
    why: str = ""


HUGGINGFACE: Final = "tests/vlm/test_huggingface.py::"
ASKS: Final = "in_context sft_data sft rl_data rce grpo evaluate"
MODEL: Final = "no model answers in the formula world"
EXACT: Final = "it changes speed or memory, and no result"


def _model(test: str, value: Any, why: str = MODEL) -> Leaf:
    return Leaf(ASKS, value, HUGGINGFACE + test, why=why)


def _scoring(test: str, value: Any) -> Leaf:
    return Leaf("", value, f"tests/vlm/{test}", why="where answers are kept changes no result")


def _optimiser(stage: str, **beside: Mapping[str, Any]) -> dict[str, Leaf]:
    """Return the leaves that all trainings have; `beside`: what else some of them need."""
    each = {
        "epochs": Leaf(stage, 2, f"{stage}:history.jsonl"),
        "learning_rate": Leaf(stage, 1.0e-3, stage),
        "schedule": Leaf(stage, "linear", f"{stage}:history.jsonl"),
        "warmup": Leaf(stage, 5, f"{stage}:history.jsonl"),
        "batch_size": Leaf(stage, 7, stage),
        "weight_decay": Leaf(stage, 0.5, stage),
        "grad_clip": Leaf(stage, 0.05, stage),
    }
    return {
        f"{stage}.{name}": leaf._replace(beside=beside.get(name, leaf.beside))
        for name, leaf in each.items()
    }


def _stop() -> dict[str, Leaf]:
    values = {
        **{"epochs": 2, "learning_rate": 1.0e-4, "schedule": "linear", "warmup": 5},
        **{"batch_size": 7, "weight_decay": 0.5, "grad_clip": 0.01, "head_rate": 0.1},
        **{"passes": 2, "rounds": 1, "fixed_share": 1.0, "prices": [0.0, 0.3]},
    }
    where = "grpo evaluate report"
    return {
        f"stop.{name}": Leaf(where, value, "grpo:history.jsonl") for name, value in values.items()
    }


def _agro() -> dict[str, Leaf]:
    leaves = _optimiser("agro")
    return {
        key: leaf._replace(stages="rce", shown=leaf.shown.replace("agro", "rce", 1))
        for key, leaf in leaves.items()
    }


SETTINGS: Final[dict[str, Leaf]] = {
    "seed": Leaf("prepare in_context pool evaluate", 2, "pool evaluate"),
    "training_seeds": Leaf("evaluate report", [2], "evaluate report"),
    "threads": Leaf(
        "embed rce grpo",
        3,
        "tests/hub/test_threads.py::test_threads_are_set_for_the_process",
        why=EXACT,
    ),
    "data.source.kind": Leaf("prepare in_context report", "embedded", "prepare"),
    "data.source.train": Leaf("prepare", 30, "prepare:train.jsonl"),
    "data.source.dev": Leaf("prepare", 9, "prepare:dev.jsonl"),
    "data.source.test": Leaf("prepare", 9, "prepare"),
    "data.source.plain_share": Leaf("prepare", 0.9, "prepare"),
    "data.source.image_size": Leaf("prepare", 80, "prepare"),
    "data.rl_queries": Leaf("prepare pool rl_data", 60, "pool rl_data"),
    "data.sft_queries": Leaf("sft_data", 20, "sft_data"),
    "data.near_duplicate_bits": Leaf("prepare", 8, "prepare:near_duplicates.jsonl"),
    "pool.policy": Leaf("pool evaluate", "shared", "pool"),
    "pool.sampler": Leaf("pool", "text", "pool"),
    "pool.search": Leaf(
        "pool",
        "approximate",
        "tests/pipeline/test_pool_stage.py::"
        "test_an_approximate_search_is_asked_for_and_finds_the_same_among_few",
        why="among few examples it finds the same",
    ),
    "pool.size": Leaf("pool", 13, "pool"),
    "pool.scarcity": Leaf("pool", 0.0, "pool"),
    "vlm.kind": Leaf(
        ASKS,
        "openai",
        "tests/vlm/test_server.py::test_answers_are_those_of_the_local_model",
        why=MODEL,
    ),
    "vlm.path": _model("test_a_folder_without_model_is_refused", "other"),
    "vlm.revision": _model("test_the_revision_changes_with_the_weights", "main"),
    "vlm.device": _model("test_answers_and_likelihoods_do_not_depend_on_batches", "cuda", EXACT),
    "vlm.dtype": Leaf(
        ASKS,
        "bfloat16",
        "tests/vlm/test_store.py::test_another_model_prompt_or_decoding_is_another_answer",
        why=MODEL,
    ),
    "vlm.attn_implementation": _model(
        "test_answers_equal_those_of_generate_one_by_one", "eager", EXACT
    ),
    "vlm.prompt.style": _model("test_the_prompt_hash_changes_with_the_template", "flat"),
    "vlm.prompt.instruction": Leaf(
        ASKS,
        "In one word.",
        "tests/vlm/test_server.py::test_the_identity_changes_with_the_instruction",
        why=MODEL,
    ),
    "vlm.max_new_tokens": _model("test_answers_of_several_tokens_are_scored_on_all_of_them", 3),
    "vlm.num_beams": Leaf(
        ASKS,
        2,
        "tests/vlm/test_models.py::test_beams_in_batches_equal_those_one_by_one",
        why=MODEL,
    ),
    "vlm.batch_tokens": _model("test_out_of_memory_halves_the_batch_and_goes_on", 999, EXACT),
    "vlm.segment_megabytes": _model(
        "test_segments_outside_the_memory_budget_are_made_again", 1, EXACT
    ),
    "vlm.prefix_reuse": _model(
        "test_answers_and_likelihoods_do_not_depend_on_batches", False, EXACT
    ),
    "vlm.workers": _model("test_answers_and_likelihoods_do_not_depend_on_batches", 1, EXACT),
    "scoring.store": _scoring("test_store.py::test_what_was_asked_once_is_never_asked_again", "s"),
    "scoring.features_megabytes": _scoring(
        "test_store.py::test_image_features_are_kept_within_their_budget", 0
    ),
    "scoring.executor": _scoring("test_ray.py::test_results_are_those_of_this_process", "ray"),
    "scoring.ray.address": _scoring("test_ray.py::test_results_are_those_of_this_process", "auto"),
    "scoring.ray.actors": _scoring("test_ray.py::test_more_than_the_cluster_has_is_refused", 3),
    "scoring.ray.num_cpus": _scoring("test_ray.py::test_more_than_the_cluster_has_is_refused", 2.0),
    "scoring.ray.num_gpus": _scoring("test_ray.py::test_more_than_the_cluster_has_is_refused", 1.0),
    "in_context.probes": Leaf("in_context", 4, "in_context"),
    "embed.path": Leaf("embed", "other", "embed:feature_space.safetensors"),
    "embed.revision": Leaf("embed", "main", "embed:feature_space.safetensors"),
    "embed.device": Leaf(
        "embed",
        "cuda",
        "tests/features/test_embeddings.py::test_features_do_not_depend_on_the_batch",
        why=EXACT,
    ),
    "embed.batch_size": Leaf(
        "embed",
        3,
        "tests/features/test_embeddings.py::test_features_do_not_depend_on_the_batch",
        why=EXACT,
    ),
    "embed.variance": Leaf("embed", 0.5, "embed"),
    "policy.kind": Leaf("sft", "v2", "sft", {"policy": {"layers": 1, "temperature": 0.1}}),
    "policy.hidden": Leaf("sft", 8, "sft"),
    "policy.layers": Leaf("sft", 2, "sft"),
    "policy.temperature": Leaf("sft", 1.0, "sft"),
    "pointer.shots": Leaf(
        "sft rl_data rce grpo evaluate", 1, "rl_data evaluate", {"reward": {"shot_weights": [1.0]}}
    ),
    "pointer.price": Leaf("grpo evaluate", 3.0, "evaluate"),
    "pointer.price_per": Leaf(
        "grpo evaluate",
        "token",
        "tests/training/test_stop.py::test_tokens_may_be_what_costs",
        why="the formula does not say how many tokens a prompt has",
    ),
    "reward.hard": Leaf("sft rce grpo report", 0.1, "sft:history.jsonl rce grpo"),
    "reward.soft": Leaf("sft rce grpo report", 0.1, "sft:history.jsonl rce grpo"),
    "reward.clip": Leaf("sft rce grpo report", 1.0, "sft:history.jsonl rce grpo"),
    "reward.shot_weights": Leaf("sft rce grpo report", [0.0, 1.0], "sft:history.jsonl rce grpo"),
    "sft_data.beam": Leaf("sft_data sft", 2, "sft_data"),
    "sft_data.shots": Leaf("sft_data sft", 1, "sft_data"),
    "sft.targets": Leaf("sft evaluate report", {"sft": "beams"}, "sft evaluate report"),
    **_optimiser("sft", schedule={"sft": {"patience": None}}),
    "sft.patience": Leaf(
        "sft",
        1,
        "sft:history.jsonl",
        # A step so large that the policy gets worse.
        {"sft": {"learning_rate": 0.3, "epochs": 3, "dev_every": 1}},
    ),
    "sft.temperature": Leaf("sft", 1.0, "sft"),
    "sft.dropout": Leaf("sft", 0.5, "sft"),
    "sft.dev_every": Leaf("sft", 1, "sft:history.jsonl"),
    "rl_data.beam": Leaf("rl_data", 2, "rl_data"),
    "rl_data.samples": Leaf("rl_data", {"0.7": 3}, "rl_data"),
    "rl_data.stochastic_beam": Leaf("rl_data", {"1.0": 2}, "rl_data"),
    "rl_data.random": Leaf("rl_data", 1, "rl_data"),
    "rl_data.retrieval": Leaf("rl_data", 2, "rl_data"),
    "rl_data.scores": Leaf("rl_data", ["gt_prob", "relevance"], "rl_data"),
    "rl.filter_gen_methods": Leaf("rce grpo", ["beam", "random"], "rce"),
    "rl.constant_groups": Leaf("rce grpo", "keep", "rce grpo"),
    "rl.min_informative": Leaf(
        "rce grpo",
        1.0,
        "tests/training/rl_data/test_headroom.py::test_data_that_teach_nothing_are_called_that_and_stop_the_run",
        why="it only stops a training",
    ),
    "rce.credit": Leaf("rce", "total", "rce"),
    "rce.dropout": Leaf("rce", 0.1, "rce"),
    **_optimiser("rce"),
    "rce.tau": Leaf(
        "rce evaluate report",
        {"rce": {"start": 1.0, "end": 1.0}, "rce-seed": {"start": 2.0, "end": 0.5}},
        "rce",
    ),
    "agro.credit": Leaf("rce", "total", "rce"),
    **_agro(),
    "agro.beta": Leaf("rce", 0.05, "rce"),
    "agro.rounds": Leaf("rce", 1, "rce:agro/history.jsonl"),
    "agro.group_size": Leaf("rce", 2, "rce:agro/history.jsonl", {"agro": {"rounds": 1}}),
    **_optimiser("grpo"),
    "grpo.schedule": Leaf("grpo", "constant", "grpo:history.jsonl"),
    "grpo.start": Leaf("grpo evaluate", "agro", "grpo"),
    "grpo.rounds": Leaf("grpo", 2, "grpo:history.jsonl"),
    "grpo.group_size": Leaf("grpo", 4, "grpo"),
    "grpo.credit": Leaf("grpo", "total", "grpo"),
    "grpo.advantage": Leaf("grpo", "z_score", "grpo"),
    "grpo.ratio": Leaf("grpo", "sequence", "grpo", {"grpo": {"credit": "total", "epochs": 4}}),
    "grpo.clip_low": Leaf("grpo", 0.01, "grpo", {"grpo": {"epochs": 4}}),
    "grpo.clip_high": Leaf("grpo", 0.01, "grpo", {"grpo": {"epochs": 4}}),
    "grpo.kl": Leaf("grpo", "k3", "grpo"),
    "grpo.kl_beta": Leaf("grpo", 1.0, "grpo"),
    "grpo.kl_target": Leaf("grpo", [5.0, 6.0], "grpo:history.jsonl"),
    **_stop(),
    "evaluate.random_seeds": Leaf("evaluate", 1, "evaluate"),
    "evaluate.diverse_relevance": Leaf("evaluate", 0.1, "evaluate"),
    "evaluate.fixed_pointers": Leaf("evaluate", 1, "evaluate"),
    "evaluate.instructions": Leaf("evaluate", ["ember or fern"], "evaluate"),
    "evaluate.best_of": Leaf("evaluate", 3, "evaluate"),
    "evaluate.oracle_queries": Leaf("evaluate", 5, "evaluate"),
    "evaluate.oracle_beam": Leaf("evaluate", 1, "evaluate"),
    "evaluate.resamples": Leaf("evaluate report", 200, "evaluate:summary.json"),
    "evaluate.order_queries": Leaf("evaluate", 4, "evaluate:diagnostics.json"),
    "evaluate.selectors": Leaf("evaluate", ["pipeline.own_selector:first_of_pool"], "evaluate"),
}
"""{leaf: what is known about it}, in the order of params.yaml."""
