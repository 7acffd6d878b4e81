"""Running prompts through a model: plain batches, and prompts that share prefixes."""
