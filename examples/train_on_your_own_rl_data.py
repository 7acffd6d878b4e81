"""Train a selector by RCE on RL data of your own, save it, and let it choose for a question.

    python examples/train_on_your_own_rl_data.py --rl-data imported --out my-selector

RL data (see `lever-plus import-rl`) are made for these pools and features. What is not named is
what this project has.
"""

from pathlib import Path

import torch
import typer

# Public modules: `pipeline` finds and reads the files, `policy` makes and saves a network,
# `training` trains it. The VLM of params.yaml scores every epoch on the dev questions.
from lever_plus import load_selector
from lever_plus.config.file import load_params
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.kinds import build_policy, configure
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Run


def main(
    rl_data: Path = Path("artifacts/rl_data/seed1"),
    pools: Path = Path("artifacts/pool"),
    features: Path = Path("artifacts/embed"),
    encoder: str = "shipped:clip",
    out: Path = Path("my-selector"),
) -> None:
    """Print the figures of every epoch, and what the policy of the best one chooses."""
    params, paths = load_params(), Paths(moved={"pool": pools, "embed": features})
    work, shots = Workspace(paths, params.vlm, params.scoring), params.pointer.shots
    sizes = {"query_size": work.space.query_size, "candidate_size": work.space.candidate_size}
    torch.manual_seed(params.seed)
    policy = build_policy(configure(params.policy, **sizes, shots=shots))
    run = Run(params.seed, observe=typer.echo)
    environment = work.environment(shots, params.reward)
    groups, dev = work.groups(rl_data, params.reward, params.rl), work.queries("dev")
    tau = next(iter(params.rce.tau.values()))
    trained = train_rce(policy, environment, groups, dev, params.rce, tau, run)
    config = CheckpointConfig(
        architecture=policy.config,
        feature_space=work.space.sha256,
        encoder=EncoderFacts(sha256=work.space.encoder, path=encoder),
        pool_sha256=work.pools.sha256,
        vlm=work.vlm.identity,
        prompt={"style": work.vlm.prompt.style, "instruction": work.vlm.prompt.instruction},
        training={"method": "rce", "seed": params.seed, "best_epoch": trained.best_epoch},
    )
    save_checkpoint(out, trained.best(), work.space, config)
    question = work.of_split("test")[0]
    for example in load_selector(out).select(question.query, *work.pools_of([question]), shots):
        typer.echo(f"{example.question} {example.answer}")


if __name__ == "__main__":
    typer.run(main)
