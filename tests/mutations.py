"""Known mistakes: a text in a source file, and the wrong text that replaces it.

The first eight once passed all tests together.
"""

from typing import Final, NamedTuple


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
        'best_instruction(vlm, texts, workspace.of_split("dev"), evaluate.resamples)',
        'best_instruction(vlm, texts, workspace.of_split("test"), evaluate.resamples)',
        "the instruction is chosen on test",
    ),
    Mutation(
        "pipeline/evaluate.py",
        "evaluate_zero_shot(Scorer(instructed.vlm), INSTRUCTED, questions)",
        "evaluate_zero_shot(workspace.scorer, INSTRUCTED, questions)",
        "the instruction that was chosen is not in the prompts",
    ),
    Mutation(
        "evaluation/instructions.py",
        'best = max(rows, key=lambda row: row["accuracy"])',
        'best = min(rows, key=lambda row: row["accuracy"])',
        "the instruction is the worst on dev",
    ),
    Mutation(
        "pipeline/evaluate.py",
        "selector = workspace.selector(workspace.paths.trained(method, seed), price)",
        "selector = workspace.selector("
        "workspace.paths.trained(method, settings.training_seeds[0]), price)",
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
        "policy = workspace.load_policy(paths.trained(settings.grpo.start, seed))",
        'policy = workspace.load_policy(paths.trained("rce", seed))',
        "grpo.start is ignored",
    ),
    Mutation(
        "pipeline/grpo.py",
        "policy = workspace.load_policy(paths.trained(settings.grpo.start, seed))",
        "policy = workspace.load_policy(paths.trained(settings.grpo.start, 1))",
        "GRPO starts from the first seed's policy",
    ),
    Mutation(
        "pipeline/grpo.py",
        'paths, dev = workspace.paths, workspace.queries("dev")',
        'paths, dev = workspace.paths, workspace.queries("test")',
        "GRPO's epoch is chosen on test",
    ),
    Mutation(
        "pipeline/sft.py",
        'workspace.queries("dev")',
        'workspace.queries("test")',
        "SFT's epoch is chosen on test",
    ),
    Mutation(
        "pipeline/sft.py",
        '"beams": beams}',
        '"beams": scores}',
        "what is to imitate the best sequences alone imitates all scores",
    ),
    Mutation(
        "pipeline/sft.py",
        "beam = settings.sft_data.beam",
        "beam = 1",
        "one of the sequences that the search kept is imitated",
    ),
    Mutation(
        "pipeline/offline.py",
        "paths.trained(SFT, seed), settings",
        'paths.trained("sft-beams", seed), settings',
        "RL starts from the policy that SFT's is compared with",
    ),
    Mutation(
        "pipeline/rl_data.py",
        "proposer = paths.trained(SFT, seed)",
        'proposer = paths.trained("sft-beams", seed)',
        "the policy that SFT's is compared with proposes the RL data",
    ),
    Mutation(
        "pipeline/offline.py",
        'workspace.queries("dev")',
        'workspace.queries("train", 30)',
        "the offline epochs are chosen on training questions",
    ),
    Mutation(
        "pipeline/offline.py",
        "train_rce(\n            workspace.load_policy(start)",
        "train_rce(\n            workspace.load_policy(start).apply("
        'lambda m: getattr(m, "reset_parameters", int)())',
        "RCE starts from a random policy",
    ),
    Mutation(
        "pipeline/offline.py",
        "paths.trained(SFT, seed), settings",
        "paths.trained(SFT, 1), settings",
        "RCE of every seed starts from the first seed's SFT policy",
    ),
    Mutation(
        "pipeline/offline.py",
        "groups = workspace.groups(paths.rl_data(seed),",
        "groups = workspace.groups(paths.rl_data(1),",
        "the offline policies of every seed learn from the first seed's RL data",
    ),
    Mutation(
        "pipeline/grpo.py",
        "groups = workspace.groups(paths.rl_data(seed),",
        "groups = workspace.groups(paths.rl_data(1),",
        "GRPO of every seed takes the first seed's RL data",
    ),
    Mutation(
        "pipeline/rl_data.py",
        "proposer = paths.trained(SFT, seed)",
        "proposer = paths.trained(SFT, 1)",
        "the first seed's SFT policy proposes the RL data of every seed",
    ),
    Mutation(
        "pipeline/rl_data.py",
        "proposals = propose(environment, policy, queries, settings.rl_data, seed)",
        "proposals = propose(environment, policy, queries, settings.rl_data, 1)",
        "the RL data of every seed are drawn with the first",
    ),
    Mutation(
        "experiments/study/objective.py",
        "same = seed == self.first_seed and all(",
        "same = all(",
        "a trial starts from an RCE policy that other RL data taught",
    ),
    Mutation(
        "pipeline/sft_data.py",
        'splits["train"][: settings.sft_queries]',
        'splits["train"][: settings.sft_queries // 2]',
        "half of the queries are not searched",
    ),
    Mutation(
        "pipeline/rl_data.py",
        "policy = workspace.load_policy(proposer)",
        "policy = workspace.load_policy(proposer).apply("
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
        "return -sequence.info_score, _ids(",
        "return sequence.info_score, _ids(",
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
        "asked = [Asked(selection.examples, example) for example, _, selection in chosen]",
        "asked = [Asked(selection.examples[::-1], example) for example, _, selection in chosen]",
        "the VLM sees the demonstrations in another order than the table says",
    ),
    Mutation(
        "pipeline/evaluate.py",
        "price = settings.pointer.price if method == GRPO_STOP else None",
        "price = 0.0 if method == GRPO_STOP else None",
        "the policy that stops is evaluated at no price",
    ),
    Mutation(
        "pipeline/grpo.py",
        "policy, queries = workspace.load_policy(paths.trained(GRPO, seed)), groups.queries",
        "policy, queries = workspace.load_policy("
        "paths.trained(settings.grpo.start, seed)), groups.queries",
        "STOP starts from the offline policy",
    ),
    Mutation(
        "training/stop.py",
        "returns = reward_to_go(values[..., 1:], mixed + params.fixed_share * weights)",
        "returns = reward_to_go(values[..., 1:], mixed)",
        "fixed_share is ignored",
    ),
    Mutation(
        "policy/decoding.py",
        "left_out = torch.arange(pointers.shape[-1]) >= count.unsqueeze(-1)",
        "left_out = torch.arange(pointers.shape[-1]) > count.unsqueeze(-1)",
        "the demonstration after the stop is shown",
    ),
    Mutation(
        "evaluation/scored.py",
        'whole = part.pivot(index="query_id", columns=["shot", "seed"], values="vqa_acc_score")',
        'whole = part.pivot(index="query_id", columns=["shot", "seed"], values="vqa_correct")',
        "the summary averages the hard score",
    ),
    Mutation(
        "evaluation/trainings.py",
        "return Runs(count, float(by_run.var(ddof=1)) / count, noise)",
        "return Runs(count, noise, noise)",
        "intervals leave out what differs between trainings",
    ),
    Mutation(
        "evaluation/scored.py",
        "separable, needed = p_holm < 1 - LEVEL, None",
        'separable, needed = row["p"] < 1 - LEVEL, None',
        "tables call different what the correction does not",
    ),
    Mutation(
        "evaluation/scored.py",
        "if len(varying) == 2 and ours.seeds == theirs.seeds:",
        "if len(varying) == 3:",
        "trainings of one chain are not paired",
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
        "experiments/study/storage.py",
        'study_name=settings.name, direction="maximize"',
        'study_name=settings.name, direction="minimize"',
        "the study looks for the worst",
    ),
    Mutation(
        "experiments/ablation/variant.py",
        'base, params = load_params(root / "params.yaml"), params_of(variant, root)',
        'base = params = load_params(root / "params.yaml")',
        "a variant trains with the pipeline's params",
    ),
    Mutation(
        "experiments/ablation/results.py",
        'self._questions = workspace.of_split("test")',
        'self._questions = workspace.of_split("dev")',
        "a variant is evaluated on dev",
    ),
    Mutation(
        "experiments/ablation/results.py",
        "place = checkpoint(method, seed)",
        "place = checkpoint(methods[0], seed)",
        "all methods of a variant are scored with the first one's checkpoint",
    ),
    Mutation(
        "experiments/ablation/results.py",
        "price = self._pointer.price if method == GRPO_STOP else None",
        "price = None",
        "a variant that stops is evaluated with all demonstrations",
    ),
    Mutation(
        "experiments/ablation/transfer.py",
        "workspace = Workspace(moved, params.vlm, params.scoring, vlm)",
        "workspace = Workspace(paths, params.vlm, params.scoring, vlm)",
        "policies that are used with other pools get the pipeline's",
    ),
    Mutation(
        "experiments/ablation/transfer.py",
        "allow_other_pool=params.pool != trained_with.pool",
        "allow_other_pool=True",
        "policies are used on other pools though the transfer does not change them",
    ),
    Mutation(
        "experiments/ablation/transfer.py",
        "partial(paths.variant, transfer.policies)",
        "paths.trained",
        "a transfer uses the pipeline's policies, not those of the variant that it names",
    ),
    Mutation(
        "report/transfer.py",
        'difference["separable"] and difference["difference"] > 0',
        'difference["separable"]',
        "a selector that is worse than similarity elsewhere is said to carry over",
    ),
    Mutation(
        "report/sentences.py",
        'f"{_accuracy(rows[other])}, it {_gains(compared[name, other])}"',
        'f"{_accuracy(rows[name])}, it {_gains(compared[name, other])}"',
        "a sentence of the report names one method and has the accuracy of another",
    ),
    Mutation(
        "report/card.py",
        "won = right.index[right[learned] & ~right[other]].tolist()",
        "won = right.index[right[other] & ~right[learned]].tolist()",
        "the card counts the questions that similarity wins as those of the learned selector",
    ),
    Mutation(
        "selectors/base.py",
        "wanted = min(len(examples), shots) if stops else shots",
        "wanted = min(len(examples), shots)",
        "any selector may show fewer than it is asked for",
    ),
    Mutation(
        "selectors/baselines.py",
        "Selection(selection.examples[: len(other.examples)])",
        "Selection(selection.examples)",
        "similarity shows more than the policy that stops",
    ),
    Mutation(
        "training/best.py",
        "if reward > self.reward:",
        "if reward < self.reward or not self.weights:",
        "the worst epoch is kept",
    ),
    Mutation(
        "training/grpo.py",
        "if params.rounds and not done:",
        "if not params.rounds and not done:",
        "rounds train on the RL data",
    ),
    Mutation(
        "training/rl_data/candidates.py",
        "drawn, shots = [], len(environment.trained_weights)",
        "drawn, shots = [], environment.shots",
        "fresh candidates are not cut after the last shot that has a weight",
    ),
    Mutation(
        "training/groups.py",
        "flat.extend(place[:shots])",
        "flat.extend(place[-shots:])",
        "the first picks of the RL data are cut, and not those that no reward follows",
    ),
    Mutation(
        "training/rce.py",
        'credit = mean_to_go if params.credit == "reward_to_go" else total',
        "credit = mean_to_go",
        "rce.credit is ignored",
    ),
    Mutation(
        "training/agro.py",
        'credit = reward_to_go if params.credit == "reward_to_go" else total',
        "credit = total",
        "agro.credit is ignored",
    ),
    Mutation(
        "training/returns.py",
        "return reward_to_go(rewards, shot_weights) / remaining",
        "return reward_to_go(rewards, shot_weights)",
        "the last step's return has less weight than the first's",
    ),
    Mutation(
        "training/offline.py",
        "torch.tensor(environment.trained_weights)",
        "torch.ones(len(environment.trained_weights))",
        "offline training does not know the weights of the shots",
    ),
    Mutation(
        "training/agro.py",
        "        fresh=fresh,\n",
        "        fresh=fresh,\n        dropout=True,\n",
        "AGRO compares log-probs with dropout on",
    ),
    Mutation(
        "training/rce.py",
        "with_dropout(policy, params.dropout)",
        "policy",
        "rce.dropout is ignored",
    ),
    Mutation(
        "training/trainer.py",
        "self._masks = torch.Generator().manual_seed(run.seed)",
        "self._masks = torch.Generator().manual_seed(0)",
        "all seeds have the same dropout",
    ),
    Mutation(
        "pipeline/grpo.py",
        "settings.grpo, run, constant)",
        "settings.grpo, run)",
        "GRPO drops constant groups though they are to be kept",
    ),
    Mutation(
        "pipeline/offline.py",
        "settings.rce, tau, run, constant",
        "settings.rce, tau, run",
        "RCE drops constant groups though they are to be kept",
    ),
    Mutation(
        "training/sft.py",
        "row[pools.positions(query, each.candidates)] = torch.tensor(each.info_scores)",
        "best = each.info_scores.index(max(each.info_scores))\n"
        "            row[pools.positions(query, each.candidates[best : best + 1])] = 0.0",
        "listwise SFT imitates the best continuation alone",
    ),
    Mutation(
        "training/sft.py",
        "return Targets(loss, float(uniform))",
        "return _sequences(\n"
        "        {q: best_sequences(s, 5) for q, s in searches.items()}, pools, temperature\n"
        "    )",
        "listwise SFT imitates the beams alone",
    ),
    Mutation(
        "policy/residual.py",
        "return logits + (products / self.config.temperature).view_as(logits)",
        "return logits",
        "a residual policy does not see what it picked",
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
    Mutation(
        "pipeline/costs.py",
        "return paths.metrics if stage in paths.moved else Paths(paths.root).metrics",
        "return Paths(paths.root).metrics",
        "a variant's requests are those of the pipeline",
    ),
    Mutation(
        "vlm/template.py",
        "return {switch: value for switch, value in AT_ONCE.items() if switch in words}",
        "return {}",
        "a VLM that can think spends the tokens of its answer on a thought",
    ),
    Mutation(
        "hub/loading.py",
        "if in_pillow is not None:",
        "if in_pillow is None:",
        "pixels depend on whether torchvision is installed",
    ),
    Mutation(
        "hosts/serve/conversation.py",
        "return [*before, *shown, _instructed(asked, prompt), *after]",
        "return [*shown, *before, _instructed(asked, prompt), *after]",
        "demonstrations stand before the system message",
    ),
    Mutation(
        "hosts/serve/web.py",
        "elif not is_loopback(request.url.hostname):",
        "elif False:",
        "a page of a browser may ask the server under another name",
    ),
    Mutation(
        "hosts/serve/upstream.py",
        "if not _is_stream(reply):",
        "if reply:",
        "a stream is passed on when it has ended",
    ),
    Mutation(
        "hosts/serve/service.py",
        "return [*select_all(self._others, queries, pools, shots)]",
        "return [*self.pool.select_all(queries, shots)]",
        "a question's own pool is ignored",
    ),
    Mutation(
        "hosts/serve/upstream.py",
        "if k.lower() not in _OF_A_CONNECTION",
        "if k",
        "cookies of the upstream reach the clients",
    ),
    Mutation(
        "hosts/mlflow.py",
        "copytree(self._first, path, ignore=ignore_patterns(*FILES))",
        "copytree(self._first, path)\n        return",
        "all models of a series hold the first one's checkpoint",
    ),
    Mutation(
        "hosts/mlflow_selector.py",
        "selections = chooser.choose_all(queries, shots)",
        "selections = chooser.choose_all(queries)",
        "a request's own number of shots is ignored",
    ),
    Mutation(
        "tracking/registry.py",
        "if CROWNED not in version.tags:",
        "if True:",
        "whoever names another champion is overruled",
    ),
    Mutation(
        "tracking/registry.py",
        "if checkpoint_tags(run) != policy:",
        "if False:",
        "a policy that is trained anew is registered as the older one",
    ),
    Mutation(
        "tracking/registry.py",
        "if age(other) < age(made):",
        "if False:",
        "two machines fill the same selector's model at once",
    ),
    Mutation(
        "tracking/registry.py",
        "if age(other) < age(made):",
        "if age(other) > age(made):",
        "of two machines that create a selector's model at once, the later one fills it",
    ),
    Mutation(
        "tracking/registry.py",
        "return first is not None and first.tags.get(LOGGED) == model_id",
        "return first is not None",
        "a selector that another machine has registered first is counted as registered here",
    ),
    Mutation(
        "tracking/run.py",
        "elif model and (key, step, last.timestamp) not in in_model:",
        "elif False:",
        "a kill between a run's figures and its model's leaves the model without them",
    ),
    Mutation(
        "tracking/runs.py",
        "if not complete or (model and model.tags.get(SUMMARY_MD5) != key):",
        "if not complete:",
        "a model that is registered after its run was evaluated has no figures",
    ),
    Mutation(
        "features/kept.py",
        "return row if _content(key, row) == content else None",
        "return row",
        "features that were damaged on disk are used",
    ),
    Mutation(
        "features/index.py",
        "self._cells.remove_ids(gone)",
        "pass",
        "an approximate search finds what was removed",
    ),
    Mutation(
        "selectors/live_pool.py",
        "rows = [row for row in near if row not in own][:wanted]",
        "rows = near[:wanted]",
        "a demonstration from a large pool shows the query's own image",
    ),
    Mutation(
        "data/pool_folder.py",
        "if not found and application == 0:",
        "if not found:",
        "a pool whose table is gone counts as an empty one",
    ),
    Mutation(
        "policy/decoding.py",
        "best = first if width == 1 else",
        "best = first if width == 0 else",
        "which of equal candidates is chosen depends on the batch",
    ),
    Mutation(
        "hosts/lmms_eval.py",
        "LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False",
        "LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True",
        "lmms-eval's leniency with damaged images reaches the selector",
    ),
    Mutation(
        "hosts/demo/play.py",
        "examples = tuple(known[number] for number in numbers)",
        "examples = tuple(known[number] for number in sorted(numbers))",
        "demonstrations chosen by hand are not in the order of the hand",
    ),
    Mutation(
        "hosts/demo/play.py",
        "(len(truth.answers) == HUMANS or truth.fallback)",
        "bool(truth.answers)",
        "the demo marks answers that the metric cannot score",
    ),
    Mutation(
        "hosts/demo/play.py",
        "return self._asked_there.get((query.image_sha256, query.question))",
        "return self._asked_there.get((query.image_sha256, self.gallery[0].question))",
        "the demo takes another question about an image for the one it knows",
    ),
    Mutation(
        "hosts/demo/why.py",
        "named = [pick, *order][: min(TOP, choices)]",
        "named = [pick, *order[::-1]][: min(TOP, choices)]",
        "the demo names the least probable candidates",
    ),
)
