"""One kind of data source a file; the folder is the registry."""
