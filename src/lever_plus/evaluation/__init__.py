"""The registry of methods, evaluation at each shot, and its statistics."""
