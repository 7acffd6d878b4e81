"""The recipe that trains the shipped models from scratch, one module per stage."""
