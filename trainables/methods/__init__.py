"""One distillation method a file; the folder is the registry."""
