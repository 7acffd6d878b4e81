"""The VQA accuracy metric: the official answer normal form and three scoring conventions."""
