"""InfoScore, candidates, RL records, rewards, groups, losses and the training loop."""
