"""Reading and writing files: one reader a format, one atomic writer, one type of names."""
