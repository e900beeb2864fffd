"""The two errors that are part of the product: one for the user, one for a strategy."""


class UserError(Exception):
    """Something the user can mend. The message is a whole sentence: what was wrong, where (file, row, key), what to do."""


class Rejected(Exception):
    """A reply, or an example's own fields, break a strategy's acceptance rule; the message says why."""
