"""What each metric in MLflow means; the documentation's glossary is made from this table.

In names, `<...>` is a part that varies. Keys of history.jsonl are the names without `train/`,
and `dev_reward` for `dev/reward`.
"""

from typing import Final

GLOSSARY: Final = {
    "dev/reward": "reward of the greedy pointers on dev, weighted over shots; the weights of the "
    "epoch with the highest are kept",
    "train/dev_accuracy": "VQA accuracy of the greedy pointers on dev, mean over shots 1..K",
    "train/dev_changed": "share of dev selections that differ from those before the training",
    "train/dev_distinct_icds": "number of different demonstrations in the dev selections",
    "train/kl": "exact KL to the policy before the training, along the dev pointers, in nats per "
    "pointer",
    "train/kl_step_<t>": "the part of `train/kl` at step t; the parts sum to it",
    "train/entropy": "mean entropy of the step distributions along the dev pointers, in nats",
    "train/entropy_step_<t>": "the same at step t",
    "train/epoch": "epochs so far (the MLflow step counts optimiser steps)",
    "train/vlm_requests": "requests of this training to the VLM so far, including those that the "
    "store answered",
    "train/loss": "mean of the training loss over the epoch's batches",
    "train/uniform_loss": "sft, rce, agro: the loss of a policy that picks at random",
    "train/grad_norm": "norm of the gradient before clipping, mean over the epoch",
    "train/tau": "rce: temperature of the weights softmax(R / tau)",
    "train/reward": "mean return of the candidates, including those of constant groups",
    "train/reward_std": "standard deviation of the returns in a group, mean over groups",
    "train/advantage_std": "standard deviation of the advantages",
    "train/frac_reward_zero_std": "share of groups whose returns are all equal, so that they teach "
    "nothing",
    "train/distinct_share": "share of the candidates that do not repeat another",
    "train/round": "grpo: number of the round of fresh candidates",
    "train/surrogate": "grpo: the part of the loss that is the clipped objective",
    "train/kl_penalty": "grpo: KL to the reference on the training candidates, before it is "
    "multiplied by kl_beta",
    "train/kl_share": "grpo: share of the KL term in the loss, by absolute values",
    "train/kl_beta": "grpo: weight of the KL",
    "train/clip_ratio": "grpo: share of the ratios of a query that are clipped, mean over queries",
    "train/stop_loss": "grpo-stop: cross-entropy of stopping, weighted by what stopping gains or "
    "loses",
    "train/dev_demonstrations": "grpo-stop: mean number of demonstrations shown on dev at "
    "pointer.price",
    "train/log_ratio": "agro: log(policy / reference) of a query's candidates, mean over them and "
    "over queries",
    "train/list_ess": "agro: effective sample size of a query's candidates under the policy, as a "
    "share of their number",
    "eval/acc/shot_<k>": "VQA accuracy on the test questions with k demonstrations, for the run's "
    "seed",
    "eval/acc/shot_<k>_ci95_<bound>": "bounds of the 95 % interval of the mean over seeds; it "
    "covers images and, if there are several, trainings",
    "eval/acc/mean": "the mean over shots 1..K, for the run's seed",
    "eval/acc/ci95_<bound>": "bounds of the 95 % interval of the mean over shots and seeds",
    "curve/acc": "the accuracies again, with the number of shots as MLflow step",
    "delta/vs_<method>": "difference from another method in the mean over shots and seeds, paired "
    "by question",
    "delta/vs_<method>_<bound>": "bounds of its 95 % interval",
    "scoring/requests": "distinct requests to the VLM, including those that the store answered",
    "scoring/store_hits": "requests that the store answered",
    "scoring/answers_per_s": "requests per second, store and VLM together",
    "scoring/tokens_saved": "share of prompt tokens that sharing prefixes saved",
    "scoring/empty_answers": "answers that are empty or white space; they score 0, unless the "
    "human answers normalise to nothing too, such as 'a'",
    "study/trials": "trials that have ended",
    "study/best_difference": "difference of the best feasible trial so far",
    "study/difference": "a trial's objective: its dev accuracy minus that of RCE alone, paired by "
    "question",
    "study/difference_so_far": "the same for what is trained so far; pruning uses it",
    "study/dev_acc_shot_<k>": "a trial's dev accuracy with k demonstrations, mean over seeds",
    "study/kl": "a trial's KL to RCE on dev, in nats; the study limits it",
}
