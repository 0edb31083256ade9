"""What can go wrong, as a tree.

KdsweepError
├── StudyError           the study file, or a --set override, is not valid: every fault is listed; nothing was started
├── StorageError         results cannot be read or written, or belong to another study
│   └── StudyLocked      another driver works on this study
├── Refused              what was asked does not go with where the study stands: nothing was changed
├── LaneError            a lane could not be started or died more often than it may
├── Hopeless             trainings failed one after another, and nothing got anywhere: more of them would not help
└── Interrupted          stopped by the user; what is finished is kept and ``run`` goes on from there

A training that fails is not an exception here: it is a row with a status.
"""

from __future__ import annotations


class KdsweepError(Exception):
    """Base of every error that a user can act on; the command line prints its message without a trace."""

    exit_code = 2


class StudyError(KdsweepError):
    """The study is not valid. ``faults`` holds one line each, in file order."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class StorageError(KdsweepError):
    """Results cannot be read or written, or belong to another study."""


class StudyLocked(StorageError):
    """Another driver works on this study."""


class Refused(KdsweepError):
    """What was asked does not go with where the study stands; nothing was changed."""


class LaneError(KdsweepError):
    """A lane could not be started or died more often than it may."""

    exit_code = 3


class Hopeless(KdsweepError):
    """All trainings failed; the launch ended before it tried the rest."""

    exit_code = 3


class Interrupted(KdsweepError):
    """Stopped by the user; resumable."""

    exit_code = 4
