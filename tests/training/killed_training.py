"""A GRPO training to be killed: `killed_training.py FOLDER EPOCH` hangs once it is at EPOCH."""

import json
import sys
import time
from pathlib import Path

import torch

from identity_task import make_task
from lever_plus.training.grpo import train_grpo
from lever_plus.training.trainer import Row, Run
from training import GRPO


def main(folder: Path, hang_at: int) -> None:
    torch.set_num_threads(1)
    history = (folder / "history.jsonl").open("w", encoding="utf-8")

    def observe(row: Row) -> None:
        history.write(json.dumps(row) + "\n")
        if row["epoch"] == hang_at:
            sys.stdout.write(f"epoch {hang_at}\n")
            sys.stdout.flush()
            time.sleep(60)

    task = make_task()
    policy = task.policy()
    params = GRPO.model_copy(update={"rounds": 3})
    run = Run(5, observe, folder / "state.safetensors", threads=2)
    train_grpo(policy, task.environment, task.groups(size=8), task.dev, params, run)
    history.close()
    weights = [p.detach().numpy().tobytes() for p in policy.parameters()]
    (folder / "weights.bin").write_bytes(b"".join(weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
