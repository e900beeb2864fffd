"""The errors that are part of the product: for the user, for a strategy, and for a job that is to go on later."""


class UserError(Exception):
    """Something the user can mend. The message is a whole sentence: what was wrong, where (file, row, key), what to do."""


class Rejected(Exception):
    """A reply, or an example's own fields, break a strategy's acceptance rule; the message says why."""


class Stopped(SystemExit):
    """Asked to stop before the end, by Slurm or by a person; what is finished is saved. The message is a whole sentence.

    It may come at any line. As a SystemExit it passes every `except Exception` on the way, and asyncio lets it through at once.
    """
