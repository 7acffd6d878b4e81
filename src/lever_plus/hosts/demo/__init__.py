"""A page to play with: what each method shows the VLM for a question, why, and what it answers."""
