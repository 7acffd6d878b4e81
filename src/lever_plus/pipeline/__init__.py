"""The pipeline: one module per DVC stage, which reads files, computes and writes files."""
