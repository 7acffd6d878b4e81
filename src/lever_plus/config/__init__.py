"""params.yaml as frozen models, and reading, merging and checking the file."""
