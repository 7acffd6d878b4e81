"""What was computed is kept: answers, likelihoods, image features."""
