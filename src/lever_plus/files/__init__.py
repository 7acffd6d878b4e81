"""Reading and writing files: one reader per format, one atomic writer, one check of names."""
