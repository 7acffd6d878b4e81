"""The Optuna study around the RCE-only baseline, and the promotion of its best trial."""
