"""The recipe that makes the shipped models from nothing, a module each stage of its pipeline."""
