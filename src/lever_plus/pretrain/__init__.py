"""Tiny CLIP and VLM of the embedded world, trained from scratch into Hugging Face folders."""
