"""The pointer policy: selector network, decoding, checkpoint."""
