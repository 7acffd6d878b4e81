"""Everything that talks to the frozen VLM: prompts, back ends, the prefix engine, the scorer."""
