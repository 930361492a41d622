"""A stable radix sort of int32 keys, and segmented sums: a segment is a run of equal keys. There are no atomics, so the
order of additions is fixed, and with it every bit.

A pass of the sort counts the digits of each block, turns the counts into exclusive prefix sums, and moves the pairs
(key, index). It reads a key twice, an index once, and writes both: 20 bytes for each of n pairs. It is bound by the
ranks inside of a block: prefix sums of 2^BITS counters, two of 16 bits in each int.
"""
import triton
import triton.language as tl

from kernels.triton_gpu import device, launch

BITS, BLOCK, WARPS = 4, 512, 4  # bits of a digit; keys and warps of a program
CHUNK, CHUNKS = 32, 8  # rows of a chunk, whose sum is computed once; chunks of a program
SEGMENTS = 32  # segments of a program
MOST_PAIRS = 2**31 - 2**27  # with one more row for each chunk, indices still fit in int32


def block_for(size, block):
    """The elements of a program: block; in the interpreter, which runs one program after another, up to 2^14. size:
    int, the elements in all."""
    return min(max(1 << (size - 1).bit_length(), 16), 1 << 14) if device.INTERPRETED and size else block


def radix_sort(keys, size, low, bits, near):
    """Pointers to the keys in ascending order and to the index that each had before; equal keys keep their order.

    keys: pointer to (size,) int32. low: int, the least key. bits: of the largest key - low; a key with more bits ends
    up anywhere. near: `Arrays`, whose device is used."""
    block, digits = block_for(size, BLOCK), 1 << BITS
    blocks = launch.programs(size, block)
    # Two buffers of keys and indices in turn; counts of each digit in each block
    *pairs, counts, totals = launch.workspace(near, empty=[
        (n, "int32") for n in (size, size, size, size, digits * blocks, digits)])  # fmt: skip
    indices = None
    for turn, shift in enumerate(range(0, max(bits, 1), BITS)):
        to_keys, to_indices = pairs[2 * (turn % 2) : 2 * (turn % 2) + 2]
        constants = dict(warps=WARPS, DIGITS=digits, BLOCK=block)
        launch.run(_count, blocks, near, counts, keys, low, shift, size, **constants)
        exclusive_sums(counts, totals, digits, blocks, near)
        launch.run(_move, blocks, near, to_keys, to_indices, keys, indices, counts, totals, low, shift, size,
                   **constants)  # fmt: skip
        keys, indices = to_keys, to_indices
    return keys, indices


def exclusive_sums(counts, totals, rows, columns, near):
    """Replaces each count by the sum of those before it in its row, and writes the sum of each row to totals. counts:
    pointer to (rows, columns) int32. totals: pointer to (rows,) int32. near: `Arrays`."""
    block, together = block_for(columns, BLOCK), rows if device.INTERPRETED else 1
    launch.run(_exclusive_sums, rows // together, near, counts, totals, columns, ROWS=together, BLOCK=block)


def segment_begins(keys, size, segments, near):
    """A pointer to the index where the segment of each key 0 .. segments begins, (segments + 1,) int32. keys: pointer
    to (size,) int32, ascending. near: `Arrays`."""
    (begin,) = launch.workspace(near, empty=[(segments + 1, "int32")])
    block = block_for(segments + 1, BLOCK)
    launch.run(_segment_begins, launch.programs(segments + 1, block), near, begin, keys, size, size.bit_length(),
               segments + 1, BLOCK=block)  # fmt: skip
    return begin


def rows_for(size):
    """The number of rows, and one more for each chunk of them. size: int, rows."""
    return size + launch.programs(size, CHUNK)


def add_chunks(values, size, columns, near):
    """Writes the sum of each chunk of CHUNK rows after the last row, for `segment_sums`. values: pointer to
    (rows_for(size), columns) float32. near: `Arrays`."""
    block = block_for(launch.programs(size, CHUNK), CHUNKS)
    launch.run(_add_chunks, launch.programs(size, CHUNK * block), near, values, size, C=columns, CHUNK=CHUNK,
               CHUNKS=block)  # fmt: skip


@triton.jit
def digits_of(keys, low, shift, size, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    """A block of keys: indices, mask, keys, digits, and one-hot counters (DIGITS / 2, BLOCK) int32. Row d of these
    holds the counter of digit 2 d in its low 16 bits and that of digit 2 d + 1 in its high 16 bits.

    keys: pointer to (size,) int32. low, size: as in `radix_sort`. shift: the lowest bit of the digit."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    key = tl.load(keys + i, mask=inside, other=0)
    digit = ((key - low) >> shift) & (DIGITS - 1)
    own = tl.where(inside, digit >> 1, DIGITS)[None, :] == tl.arange(0, DIGITS // 2)[:, None]  # (DIGITS / 2, BLOCK)
    return i, inside, key, digit, tl.where(own, (1 << ((digit & 1) * 16))[None, :], 0)


@triton.jit(do_not_specialize=["low", "shift", "size"])
def _count(counts, keys, low, shift, size, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    _, _, _, _, hits = digits_of(keys, low, shift, size, DIGITS, BLOCK)
    both, at = tl.sum(hits, 1), 2 * tl.arange(0, DIGITS // 2) * tl.num_programs(0) + tl.program_id(0)
    tl.store(counts + at, both & 0xFFFF)
    tl.store(counts + at + tl.num_programs(0), both >> 16)


@triton.jit(do_not_specialize=["columns"])
def _exclusive_sums(counts, totals, columns, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, before = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.zeros((ROWS,), tl.int32)
    for first in range(0, columns, BLOCK):
        i = first + tl.arange(0, BLOCK)[None, :]
        at = counts + row[:, None] * columns + i  # (ROWS, BLOCK)
        count = tl.load(at, mask=i < columns, other=0)
        tl.store(at, before[:, None] + tl.cumsum(count, 1) - count, mask=i < columns)
        before += tl.sum(count, 1)
    tl.store(totals + row, before)


@triton.jit(do_not_specialize=["low", "shift", "size"])
def _move(
    to_keys, to_indices, keys, indices, counts, totals, low, shift, size, DIGITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i, inside, key, digit, hits = digits_of(keys, low, shift, size, DIGITS, BLOCK)
    # Where the keys of each digit of this block begin: after all smaller digits, and after this one in earlier blocks
    d = tl.arange(0, DIGITS)
    total = tl.load(totals + d)
    begin = tl.cumsum(total, 0) - total + tl.load(counts + d * tl.num_programs(0) + tl.program_id(0))
    # The rank of a key among those of its digit in the block
    both = tl.sum(tl.where(hits > 0, tl.cumsum(hits, 1), 0), 0)
    to = tl.gather(begin, digit, 0) + ((both >> ((digit & 1) * 16)) & 0xFFFF) - 1
    tl.store(to_keys + to, key, mask=inside)
    tl.store(to_indices + to, i if indices is None else tl.load(indices + i, mask=inside, other=0), mask=inside)


@triton.jit
def count_below(keys, size, steps, limit):
    """The number of keys below each limit, by binary search. keys: pointer to (size,) int32, ascending. steps: bits of
    size. limit: int32 block."""
    low, high = limit * 0, limit * 0 + size
    for _ in range(steps):
        middle = low + ((high - low) >> 1)  # low + high may exceed int32
        below = (tl.load(keys + middle, mask=low < high, other=0) < limit) & (low < high)
        low, high = tl.where(below, middle + 1, low), tl.where(below, high, middle)
    return low


@triton.jit(do_not_specialize=["size", "steps", "count"])
def _segment_begins(begin, keys, size, steps, count, BLOCK: tl.constexpr):
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(begin + k, count_below(keys, size, steps, k), mask=k < count)


@triton.jit(do_not_specialize=["size"])
def _add_chunks(values, size, C: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr):
    chunk = tl.program_id(0) * CHUNKS + tl.arange(0, CHUNKS)
    row = chunk.to(tl.int64)[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    for c in tl.static_range(C):
        total = tl.sum(tl.load(values + row * C + c, mask=row < size, other=0), 1)
        tl.store(values + (size + chunk).to(tl.int64) * C + c, total, mask=chunk * CHUNK < size)


@triton.jit
def segment_sums(values, first, last, size, C: tl.constexpr, CHUNK: tl.constexpr):
    """The sums of rows first .. last - 1 in this order, a tuple of C float64 blocks, one for each column. A chunk that
    lies in the segment adds its sum in one step. values, size: as in `add_chunks`. first, last: int32 blocks."""
    sums, at = (), first
    for c in tl.static_range(C):
        sums = sums + (tl.zeros(first.shape, tl.float64),)
    while tl.max(last - at, 0) > 0:
        whole, there = (at % CHUNK == 0) & (at + CHUNK <= last), at < last
        row = values + tl.where(whole, size + at // CHUNK, at).to(tl.int64) * C
        new = ()
        for c in tl.static_range(C):
            new = new + (sums[c] + tl.load(row + c, mask=there, other=0).to(tl.float64),)
        sums, at = new, tl.where(whole, at + CHUNK, tl.where(there, at + 1, at))
    return sums
