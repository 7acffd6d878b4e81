"""The pointer policy: networks, decoding, checkpoint."""
