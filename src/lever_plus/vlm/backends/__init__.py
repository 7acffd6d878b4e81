"""Frozen VLMs that compute: on this machine, on a server, on Ray actors."""
