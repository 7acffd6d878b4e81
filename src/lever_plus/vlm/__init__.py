"""Everything that talks to the frozen VLM: prompt, backend, prefix engine, scorer."""
