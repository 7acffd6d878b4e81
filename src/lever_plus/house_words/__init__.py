"""The embedded world, house words: its vocabulary, cards and files, and its tiny models."""
