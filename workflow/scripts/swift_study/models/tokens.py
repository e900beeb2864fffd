"""The tokens of an example, and where the loss is: on the completion, on all tokens, or on the values in them.

Without PyTorch, so that rules that only count tokens begin fast.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tokens:
    """``ids`` of prompt and completion. The loss is on the completion, or on the pieces of ``ids`` in ``loss_spans``: ascending, not empty
    and apart, and without the first token, which has nothing before it to be predicted from."""

    ids: list[int]
    prompt_length: int
    loss_spans: tuple[tuple[int, int], ...] = ()

    @property
    def n_completion(self) -> int:
        return len(self.ids) - self.prompt_length

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where the loss is."""
        return self.loss_spans or ((self.prompt_length, len(self.ids)),)

    @property
    def n_labels(self) -> int:
        """Tokens that the loss is on."""
        return sum(end - start for start, end in self.spans)

    @property
    def first_label(self) -> int:
        return self.spans[0][0]
