"""Training: the environment, rewards, returns, losses, training loops and the RL data."""
