"""Inner products of per-example gradients, one weight at a time, from what the hooks captured.

Two ways give the same numbers. *Dense*: form every example's gradient, some rows of the weight at a time, and multiply these with each
other. *Ghost*: with G_i = Σ_t b_it a_itᵀ, ⟨G_i, G_j⟩ = Σ_ts (a_it·a_js)(b_it·b_js), without forming any. Dense is cheaper for many or long
examples (`dense_is_cheaper`), and the only way where each element of the weight has a factor of its own (Adam's).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from swift_study.gradients.capture import wide

GHOST_TOKENS = 4096  # of each side of a block of tokens × tokens
BLOCK = {"cpu": 2**22, "cuda": 2**28}  # elements of gradients that are formed at once: what a CPU's cache holds, and what keeps a GPU busy
PIECE = 2048  # elements of two long rows whose product is summed in the rows' own type


@dataclass
class Factors:
    """What one use of a weight left: for each batch ``left`` (examples, tokens, D) or token ids (examples, tokens), ``right`` (examples,
    tokens, K).

    An example's gradient (D, K) is Σ_t left_t right_tᵀ, where a token id stands for the unit vector of its row.
    """

    batches: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(right.shape[0] * right.shape[1] for _, right in self.batches)

    def one_hot(self) -> bool:
        return self.batches[0][0].dim() == 2


def products_of_vectors(vectors: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """⟨v_i, v_j⟩ for all rows of ``vectors`` (N, P), with ``scale`` (P,) on each side of them if given; (N, N) float64."""
    n, size = vectors.shape
    total = torch.zeros((n, n), dtype=torch.float64, device=vectors.device)
    width = max(1, BLOCK[vectors.device.type] * 4 // n)
    for start in range(0, size, width):
        part = vectors[:, start : start + width]
        part = part if scale is None else part * scale[start : start + width].to(part)
        _add_products(total, part)
    return total


def products_of_factors(
    uses: Sequence[Factors], shape: tuple[int, ...], scale: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All inner products over one weight, summed over its uses, and the same with ``scale`` (D, K) on each side; each (N, N) float64."""
    n = sum(right.shape[0] for _, right in uses[0].batches)
    if scale is None and not dense_is_cheaper(uses, shape, n):
        return ghost(uses, n, device), None
    plain = torch.zeros((n, n), dtype=torch.float64, device=device)
    scaled = None if scale is None else torch.zeros_like(plain)
    for rows, gradients in dense_blocks(uses, shape, n, device):
        _add_products(plain, gradients.flatten(1))
        if scale is not None and scaled is not None:
            _add_products(scaled, (gradients * scale[rows].to(gradients)).flatten(1))
    return plain, scaled


def dense_is_cheaper(uses: Sequence[Factors], shape: tuple[int, ...], n: int) -> bool:
    """Whether forming all gradients takes fewer operations than the ghost products (two sides' products, half of them by symmetry)."""
    rows, columns = shape
    dense = sum(0 if f.one_hot() else 2 * f.tokens * rows * columns for f in uses)
    dense += 2 * n * n * columns * (_distinct_rows(uses[0]) if len(uses) == 1 and uses[0].one_hot() else rows)
    ghost_cost = 0
    for first, f in enumerate(uses):
        for g in uses[first:]:
            left = 0 if f.one_hot() or g.one_hot() else rows
            ghost_cost += (1 if f is g else 2) * f.tokens * g.tokens * (left + columns)
    return dense < ghost_cost


def _distinct_rows(factors: Factors) -> int:
    return len(torch.unique(torch.cat([ids.flatten() for ids, _ in factors.batches])))


def dense_blocks(uses: Sequence[Factors], shape: tuple[int, ...], n: int, device: torch.device):  # type: ignore[no-untyped-def]
    """Every example's gradient, some rows of the weight at a time: yields (row numbers or slice, gradients (N, rows, K)).

    The tensor is used again for the next block. Rows that no token of an embedding chose are left out.
    """
    d, k = shape
    chosen: torch.Tensor | None = None
    if len(uses) == 1 and uses[0].one_hot():
        chosen = torch.unique(torch.cat([ids.flatten() for ids, _ in uses[0].batches]))
        d = len(chosen)
    height = max(1, min(d, BLOCK[device.type] // (n * k)))
    block = torch.empty((n, height, k), dtype=wide(uses[0].batches[0][1].dtype), device=device)
    for start in range(0, d, height):
        stop = min(start + height, d)
        part = block if stop - start == height else torch.empty((n, stop - start, k), dtype=block.dtype, device=device)
        _form(part, uses, start, stop, chosen)
        yield (slice(start, stop) if chosen is None else chosen[start:stop].cpu()), part


def _form(part: torch.Tensor, uses: Sequence[Factors], start: int, stop: int, chosen: torch.Tensor | None) -> None:
    for number, factors in enumerate(uses):
        first = 0
        for left, right in factors.batches:
            target = part[first : first + len(right)]
            first += len(right)
            if factors.one_hot():
                if number == 0:
                    target.zero_()
                _scatter(target, left.to(part.device), right.to(part), start, stop, chosen)
            elif number == 0:
                _multiply(left[:, :, start:stop].transpose(1, 2), right, target)
            else:
                extra = torch.empty_like(target)
                _multiply(left[:, :, start:stop].transpose(1, 2), right, extra)
                target += extra


def _scatter(target: torch.Tensor, ids: torch.Tensor, right: torch.Tensor, start: int, stop: int, chosen: torch.Tensor | None) -> None:
    rows = ids if chosen is None else torch.searchsorted(chosen, ids)
    example, token = torch.nonzero((rows >= start) & (rows < stop), as_tuple=True)
    height = stop - start
    flat = example * height + rows[example, token] - start
    target.view(-1, target.shape[2]).index_add_(0, flat, right[example, token])


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Batched product into ``out``, summed in its type also where the factors have a narrower one."""
    left, right = left.to(out.device), right.to(out.device)
    if left.dtype == out.dtype and right.dtype == out.dtype:
        torch.bmm(left, right, out=out)
    elif out.device.type == "cuda" and left.dtype == right.dtype:
        out.copy_(torch.bmm(left, right, out_dtype=out.dtype))
    else:
        torch.bmm(left.to(out.dtype), right.to(out.dtype), out=out)


def _add_products(total: torch.Tensor, vectors: torch.Tensor) -> None:
    """total += vectors vectorsᵀ, some rows at a time, without the half that symmetry gives; smaller blocks would be no faster."""
    height = 128
    for start in range(0, len(vectors), height):
        stop = start + height
        block = _long_product(vectors[start:stop], vectors[start:])
        total[start:stop, start:] += block
        total[stop:, start:stop] += block[:, height:].T


def _long_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left rightᵀ of few long rows (N, P), (M, P), summed over pieces of them in float64: faster than one product, and more exact."""
    pieces = left.shape[1] // PIECE
    whole = pieces * PIECE
    a, b = (v[:, :whole].view(len(v), pieces, PIECE).transpose(0, 1) for v in (left, right))
    rest = (left[:, whole:] @ right[:, whole:].T).to(torch.float64)
    return torch.bmm(a, b.transpose(1, 2)).sum(dim=0, dtype=torch.float64) + rest


def ghost(uses: Sequence[Factors], n: int, device: torch.device) -> torch.Tensor:
    """The same without forming gradients; (N, N) float64."""
    total = torch.zeros((n, n), dtype=torch.float64, device=device)
    for first, f in enumerate(uses):
        for g in uses[first:]:
            for rows, left, right in _pieces(f, device):
                for columns, other_left, other_right in _pieces(g, device):
                    if f is g and columns.start < rows.start:
                        continue
                    products = _ghost_block(left, right, other_left, other_right)
                    total[rows, columns] += products
                    if f is not g or columns.start > rows.start:
                        total[columns, rows] += products.T
    return total


def _pieces(factors: Factors, device: torch.device):  # type: ignore[no-untyped-def]
    """The examples of all batches in pieces of at most GHOST_TOKENS tokens: (their numbers, left, right) on the device."""
    first = 0
    for left, right in factors.batches:
        height = max(1, GHOST_TOKENS // right.shape[1])
        for start in range(0, len(right), height):
            stop = min(start + height, len(right))
            yield slice(first + start, first + stop), left[start:stop].to(device), right[start:stop].to(device)
        first += len(right)


def _ghost_block(left: torch.Tensor, right: torch.Tensor, other_left: torch.Tensor, other_right: torch.Tensor) -> torch.Tensor:
    products = _wide_product(right.flatten(0, 1), other_right.flatten(0, 1))
    a, b = left.flatten(0, 1), other_left.flatten(0, 1)
    if left.dim() == 2 and other_left.dim() == 2:
        products = products * (a[:, None] == b[None, :])
    elif left.dim() == 2:
        products *= b[:, a].T
    elif other_left.dim() == 2:
        products *= a[:, b]
    else:
        products *= _wide_product(a, b)
    shape = (*right.shape[:2], *other_right.shape[:2])
    return products.view(shape).sum(dim=(1, 3), dtype=torch.float64)


def _wide_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    kind = wide(left.dtype)
    if left.dtype == kind:
        return left @ right.T
    if left.device.type == "cuda":
        return torch.mm(left, right.T, out_dtype=kind)
    return left.to(kind) @ right.to(kind).T
