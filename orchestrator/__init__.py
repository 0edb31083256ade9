"""The driver: study file to plan to lanes to table to report."""
