"""The store of what the VLM has computed: answers, likelihoods, image features."""
