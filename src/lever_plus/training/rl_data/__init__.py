"""RL data: records, candidates, headroom, and the older system's JSON."""
