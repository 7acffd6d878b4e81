"""Wrong wirings that the tests must catch: `make mutants` applies each to a copy and runs them.

Each of the first eight once passed all tests at the same time. A mutation is a text of a source
file and what stands there instead; it is killed if a test fails that passes without it. The fast
tests of the pipeline run first, then those of the file's own room. Exit 1: a mutation survives, its
text is not in the source, or the tests fail without any.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "lever_plus"
COPIED: Final = ("src", "tests", "params.yaml", "dvc.yaml", "search", "presets", "ablations")
FIRST: Final = ("tests/pipeline/test_stages.py", "tests/pipeline/test_experiments.py")
TIMEOUT_S: Final = 600


class Mutation(NamedTuple):
    """A change of a source file, and why it is wrong."""

    file: str
    before: str
    after: str
    why: str


MUTATIONS: Final = (
    Mutation(
        "pipeline/evaluate.py",
        'dev, count = workspace.of_split("dev"), settings.evaluate.fixed_pointers',
        'dev, count = workspace.of_split("test"), settings.evaluate.fixed_pointers',
        "the fixed pointer is chosen on test",
    ),
    Mutation(
        "pipeline/evaluate.py",
        "selector = workspace.selector(workspace.paths.trained(method, seed))",
        "selector = workspace.selector("
        "workspace.paths.trained(method, settings.training_seeds[0]))",
        "every seed is scored with the first seed's checkpoint",
    ),
    Mutation(
        "selectors/best_of.py",
        "temperature: float = 1.0,",
        "temperature: float = 9.0,",
        "best-of-n samples from a policy that is nearly uniform",
    ),
    Mutation(
        "experiments/study/objective.py",
        "difference = accuracies.mean(axis=1) - self.baseline(seed).mean(axis=1)",
        "difference = self.baseline(seed).mean(axis=1) - accuracies.mean(axis=1)",
        "the study's objective has its sign flipped",
    ),
    Mutation(
        "experiments/study/promote.py",
        "return self.difference.low > 0 and self.kl <= settings.kl_budget",
        "return self.difference.mean >= 0 and self.kl <= settings.kl_budget",
        "a trial is promoted by its mean, whatever the interval",
    ),
    Mutation(
        "pipeline/workspace.py",
        "return groups_from_records(records, self.pools, reward, rl.filter_gen_methods)",
        "return groups_from_records(records, self.pools, reward)",
        "rl.filter_gen_methods is ignored",
    ),
    Mutation(
        "pipeline/offline.py",
        "tau = settings.rce.tau[method]",
        "tau = next(iter(settings.rce.tau.values()))",
        "every RCE method is trained with the first tau",
    ),
    Mutation(
        "pipeline/grpo.py",
        "start = paths.offline(settings.grpo.start, seed)",
        'start = paths.offline("rce", seed)',
        "grpo.start is ignored",
    ),
    Mutation(
        "pipeline/grpo.py",
        "start = paths.offline(settings.grpo.start, seed)",
        "start = paths.offline(settings.grpo.start, 1)",
        "GRPO starts from the first seed's policy",
    ),
    Mutation(
        "pipeline/grpo.py",
        'workspace.queries("dev"),',
        'workspace.queries("test"),',
        "GRPO's epoch is chosen on test",
    ),
    Mutation(
        "pipeline/sft.py",
        'workspace.queries("dev"),',
        'workspace.queries("test"),',
        "SFT's epoch is chosen on test",
    ),
    Mutation(
        "pipeline/offline.py",
        'workspace.queries("dev")',
        'workspace.queries("train", 30)',
        "the off-line epochs are chosen on training questions",
    ),
    Mutation(
        "pipeline/offline.py",
        "train_rce(\n            workspace.load_policy(start)",
        "train_rce(\n            workspace.load_policy(start).apply("
        'lambda m: getattr(m, "reset_parameters", int)())',
        "RCE starts from a random policy",
    ),
    Mutation(
        "pipeline/sft_data.py",
        'splits["train"][: settings.sft_queries]',
        'splits["train"][-settings.sft_queries :]',
        "the sequences are those of other questions, which may have no pool",
    ),
    Mutation(
        "pipeline/rl_data.py",
        "policy = workspace.load_policy(paths.sft)",
        "policy = workspace.load_policy(paths.sft).apply("
        'lambda m: getattr(m, "reset_parameters", int)())',
        "candidates come from a random policy",
    ),
    Mutation(
        "pipeline/rl_data.py",
        'queries = workspace.queries("train", settings.rl_queries)',
        'queries = workspace.queries("dev")',
        "the RL data are made of dev questions",
    ),
    Mutation(
        "pipeline/evaluate.py",
        "few = questions[: evaluate.oracle_queries]",
        "few = questions",
        "evaluate.oracle_queries is ignored",
    ),
    Mutation(
        "pipeline/evaluate.py",
        'few = workspace.of_split("test", settings.evaluate.order_queries)',
        'few = workspace.of_split("dev", settings.evaluate.order_queries)',
        "the order diagnostics are those of dev questions",
    ),
    Mutation(
        "pipeline/evaluate.py",
        "best = pointers[int(means.mean(axis=1).argmax())]",
        "best = pointers[int(means.mean(axis=1).argmin())]",
        "the fixed pointer is the worst on dev",
    ),
    Mutation(
        "pipeline/training.py",
        "_save(workspace, training, trained.best(), best)",
        "_save(workspace, training, trained.policy, best)",
        "the checkpoint is the last epoch, not the best",
    ),
    Mutation(
        "pipeline/training.py",
        "trained = fit(Run(training.seed, history.write, kept, training.threads))",
        "trained = fit(Run(1, history.write, kept, training.threads))",
        "every training has the first seed",
    ),
    Mutation(
        "selectors/best_of.py",
        "best = group[accuracies.index(max(accuracies))]",
        "best = group[0]",
        "best-of-n takes the first sample",
    ),
    Mutation(
        "selectors/best_of.py",
        "generator = torch.Generator().manual_seed(self._seed)",
        "generator = torch.Generator().manual_seed(0)",
        "best-of-n ignores its seed",
    ),
    Mutation(
        "selectors/infoscore.py",
        "return -sequence.info_score, tuple(",
        "return sequence.info_score, tuple(",
        "the search keeps the worst sequences",
    ),
    Mutation(
        "selectors/baselines.py",
        "self._rng = np.random.default_rng([seed, RANDOM_STREAM])",
        "self._rng = np.random.default_rng([0, RANDOM_STREAM])",
        "all random baselines draw the same",
    ),
    Mutation(
        "evaluation/evaluate.py",
        "asked = [Asked(selection.examples, example) for example, selection in chosen]",
        "asked = [Asked(selection.examples[::-1], example) for example, selection in chosen]",
        "the VLM sees the demonstrations in another order than the table says",
    ),
    Mutation(
        "evaluation/summary.py",
        'return scores.pivot_table(index="query_id", columns="shot", values="vqa_acc_score")',
        'return scores.pivot_table(index="query_id", columns="shot", values="vqa_correct")',
        "the summary averages the hard score",
    ),
    Mutation(
        "experiments/study/objective.py",
        'return self.workspace.queries("dev")',
        'return self.workspace.queries("test")',
        "the study chooses on test",
    ),
    Mutation(
        "experiments/study/objective.py",
        'getattr(params, part) == getattr(self.params, part) for part in (RCE, "reward", "rl")',
        "getattr(params, part) == getattr(self.params, part) for part in (RCE,)",
        "a trial with another filter starts from the pipeline's RCE policy",
    ),
    Mutation(
        "experiments/study/promote.py",
        "for seed in settings.fresh_seeds",
        "for seed in settings.seeds",
        "promotion repeats on seeds that the study has seen",
    ),
    Mutation(
        "experiments/study/worker.py",
        'direction="maximize",',
        'direction="minimize",',
        "the study looks for the worst",
    ),
    Mutation(
        "experiments/ablation/variant.py",
        'base, params = load_params(root / "params.yaml"), params_of(variant, root)',
        'base = params = load_params(root / "params.yaml")',
        "a variant trains with the pipeline's params",
    ),
    Mutation(
        "experiments/ablation/variant.py",
        'questions, scorer = workspace.of_split("test"), workspace.scorer',
        'questions, scorer = workspace.of_split("dev"), workspace.scorer',
        "a variant is evaluated on dev",
    ),
    Mutation(
        "experiments/ablation/variant.py",
        "selector = workspace.selector(workspace.paths.trained(method, seed))",
        "selector = workspace.selector(workspace.paths.trained(methods[0], seed))",
        "all methods of a variant are scored with the first one's checkpoint",
    ),
    Mutation(
        "training/best.py",
        "if reward > self.reward:",
        "if reward < self.reward or not self.weights:",
        "the worst epoch is kept",
    ),
    Mutation(
        "training/grpo.py",
        "candidates.groups, candidates.log_probs = fresh_groups(",
        "_, candidates.log_probs = fresh_groups(",
        "rounds train on the RL data",
    ),
    Mutation(
        "training/environment.py",
        "return Realised(pointers, shot_rewards(scored.scores, reward), scored.scores.soft)",
        "return Realised(pointers, shot_rewards(scored.scores, reward), scored.scores.hard)",
        "dev accuracies are the hard score",
    ),
    Mutation(
        "training/rl_data/candidates.py",
        "tau = float(temperature)\n        yield sample(",
        "tau = 1.0\n        yield sample(",
        "the temperatures of rl_data.samples are ignored",
    ),
)


def occurrences(mutation: Mutation) -> int:
    """Return how often the text of a mutation is in its file."""
    return (SOURCE / mutation.file).read_text(encoding="utf-8").count(mutation.before)


def killer(mutation: Mutation, copy: Path) -> str | None:
    """Apply a mutation to a copy and run the tests; return the first that fails, None if none."""
    path = copy / "src" / "lever_plus" / mutation.file
    whole = path.read_text(encoding="utf-8")
    for tests in (*FIRST, f"tests/{Path(mutation.file).parts[0]}"):
        _must_pass(copy, tests)
        path.write_text(whole.replace(mutation.before, mutation.after), encoding="utf-8")
        try:
            failing = _failing(copy, tests)
        finally:
            path.write_text(whole, encoding="utf-8")
        if failing:
            return failing
    return None


@cache
def _must_pass(copy: Path, tests: str) -> None:
    """End the run if tests fail without a mutation: they would kill every one."""
    failing = _failing(copy, tests)
    if failing:
        raise SystemExit(f"{failing} fails without any mutation: mend it first")


def _failing(copy: Path, tests: str) -> str | None:
    """Return the first test that fails of some; None if none does."""
    # Without bytecode: a change within the same second would not be seen.
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"{tests} ({done.stdout.strip().splitlines()[-1]})"


def main() -> int:
    """Run all mutations, or those whose file or reason holds one of the arguments."""
    wanted = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not wanted or any(w in f"{m.file} {m.why}" for w in wanted)]
    stale = [m for m in chosen if occurrences(m) != 1]
    alive = list(stale)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            made = shutil.copytree if source.is_dir() else shutil.copy
            made(source, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        for mutation in chosen:
            test = None if mutation in stale else killer(mutation, copy)
            said = f"killed by {test}" if test else "SURVIVES"
            said = "ITS TEXT IS NOT FOUND ONCE" if mutation in stale else said
            sys.stdout.write(f"{mutation.file}: {mutation.why}: {said}\n")
            sys.stdout.flush()
            if test is None and mutation not in stale:
                alive.append(mutation)
    sys.stdout.write(f"{len(chosen) - len(alive)} of {len(chosen)} mutations are killed\n")
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
