"""RL data: the files, candidates, headroom, and the older system's JSON."""
