"""One family of networks a file; the folder is the registry."""
