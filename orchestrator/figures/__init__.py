"""Figures of the report, one kind a file. Each takes values of the analysis and gives a matplotlib Figure."""
