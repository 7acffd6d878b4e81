"""Hugging Face models: their folders, strict loading, identity, and fast linear layers."""
