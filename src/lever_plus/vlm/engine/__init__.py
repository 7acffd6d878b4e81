"""Batches of prompts that share prefixes."""
