"""params.yaml as frozen models; reading, merging and checking the file."""
