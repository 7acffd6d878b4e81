"""The groups of commands in `lever-plus --help`, in the order in which a newcomer needs them."""

from typing import Final

USE: Final = "Use a trained selector"
RESULTS: Final = "Look at results"
OWN: Final = "Prepare a run, and bring your own data"
STAGES: Final = "Stages of the pipeline (dvc repro runs them)"
MORE: Final = "Searches, tracking and maintenance"
