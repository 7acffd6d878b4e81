"""One module per DVC stage: files in, one or two rooms called, files out."""
