"""Examples, splits with their leakage guard, candidate pools, and the embedded data set's maker."""
