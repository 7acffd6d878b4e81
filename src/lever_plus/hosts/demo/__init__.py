"""The demo page: what each method shows the VLM for a question, why, and what the VLM answers."""
