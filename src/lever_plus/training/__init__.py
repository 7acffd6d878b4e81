"""Environment, rewards, returns, losses and the training loops; what they learn from."""
