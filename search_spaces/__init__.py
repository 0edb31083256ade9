"""Domains, tunable fields, conditional spaces, schedules and switches: standard library only."""

from search_spaces.domains import Choice, Domain, IntUniform, LogUniform, Text, Uniform, Value, domain_from_json
from search_spaces.schedules import Schedule
from search_spaces.space import Condition, Parameter, Point, Space, space_of
from search_spaces.switches import add_one_in, is_off, leave_one_out, switches, without
from search_spaces.tunable import Tunable, all_names, changed, check, exists, field_at, flat, nearest, nested, tunable, tunables, value_at

__all__ = [
    "Choice", "Condition", "Domain", "IntUniform", "LogUniform", "Parameter", "Point", "Schedule", "Space", "Text", "Tunable", "Uniform",
    "Value", "add_one_in", "all_names", "changed", "check", "domain_from_json", "exists", "field_at", "flat", "is_off", "leave_one_out",
    "nearest", "nested", "space_of", "switches", "tunable", "tunables", "value_at", "without",
]  # fmt: skip
