"""What every metric in MLflow means; the README's glossary is written from this table.

Names hold `<...>` for a part that varies. Keys of history.jsonl are those of `train/`, and
`dev_reward`, which is `dev/reward` in MLflow.
"""

from typing import Final

GLOSSARY: Final = {
    "dev/reward": "realised reward of the greedy pointers on dev, weighted over shots; the epoch "
    "with the highest is kept",
    "train/dev_accuracy": "official VQA accuracy of the same pointers, mean over shots 1..K",
    "train/dev_changed": "share of dev selections that differ from those before training",
    "train/dev_distinct_icds": "how many different ICDs the dev selections use",
    "train/kl": "exact KL to the policy before training along the dev pointers, nats a pointer",
    "train/kl_step_<t>": "the same of step t; the steps sum to `train/kl`",
    "train/entropy": "entropy of the step distributions along the dev pointers, nats, mean",
    "train/entropy_step_<t>": "the same of step t",
    "train/epoch": "epochs done (the MLflow step counts optimiser steps)",
    "train/vlm_requests": "requests to the VLM of this training so far, those that the store "
    "answered included",
    "train/loss": "mean of the training loss over the epoch's batches",
    "train/uniform_loss": "sft, rce, agro: the loss of a policy that picks at random",
    "train/grad_norm": "norm of the gradient before clipping, mean over the epoch",
    "train/tau": "rce: temperature of the weights softmax(R / tau)",
    "train/reward": "mean return of the candidates, those of constant groups included",
    "train/reward_std": "standard deviation of returns inside groups, mean over groups",
    "train/advantage_std": "standard deviation of the advantages",
    "train/frac_reward_zero_std": "share of groups whose returns are all equal: they teach nothing",
    "train/distinct_share": "share of the candidates that are no repeat",
    "train/round": "grpo: number of the round of fresh candidates",
    "train/surrogate": "grpo: the clipped objective's part of the loss",
    "train/kl_penalty": "grpo: KL to the reference on the training candidates, before kl_beta",
    "train/kl_share": "grpo: the KL's share of the loss, in absolute values",
    "train/kl_beta": "grpo: weight of the KL",
    "train/clip_ratio": "grpo: share of a query's clipped ratios, mean over queries",
    "train/stop_loss": "grpo-stop: cross-entropy of stopping, weighed by what it is worth",
    "train/dev_demonstrations": "grpo-stop: demonstrations shown on dev at pointer.price, mean",
    "train/log_ratio": "agro: mean log(pi / reference) of a query's list, mean over queries",
    "train/list_ess": "agro: effective sample size of a list under the policy, as a share of it",
    "eval/acc/shot_<k>": "official VQA accuracy on the test questions with k demonstrations, "
    "of the run's own seed",
    "eval/acc/shot_<k>_ci95_<bound>": "bounds of the 95 % interval of the mean over seeds, over "
    "images, and over trainings where there are several",
    "eval/acc/mean": "the mean over shots 1..K, of the run's own seed",
    "eval/acc/ci95_<bound>": "bounds of the interval of the mean over seeds",
    "curve/acc": "the accuracies again, with the number of shots as MLflow step",
    "delta/vs_<method>": "difference to another method's mean over shots and seeds, paired",
    "delta/vs_<method>_<bound>": "bounds of its interval",
    "scoring/requests": "distinct requests to the VLM, those that the store answered included",
    "scoring/store_hits": "requests that the store answered",
    "scoring/answers_per_s": "requests a second, store and VLM together",
    "scoring/tokens_saved": "share of prompt tokens that sharing prefixes saved",
    "scoring/empty_answers": "answers without a letter; the metric gives them 0, but where the "
    "human answers normalise to nothing too, such as 'a'",
    "study/trials": "trials that have ended",
    "study/best_difference": "of the best feasible trial, while the study goes on",
    "study/difference": "a trial's objective: dev accuracy minus RCE-only, paired",
    "study/difference_so_far": "the same over what is trained so far; pruning reads it",
    "study/dev_acc_shot_<k>": "a trial's dev accuracy with k demonstrations, mean over seeds",
    "study/kl": "a trial's KL to RCE on dev, nats; the constraint of the study",
}
