"""What is built around the pipeline: ablations and the study."""
