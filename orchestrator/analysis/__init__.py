"""Pure functions of the table."""
