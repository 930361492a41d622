"""Lists in one order: a stable radix sort of int32 keys, prefix sums, where each key's list begins, sums along lists.
There is nothing atomic and no library: a pass counts the digits of each block, adds the counts up, and moves the pairs.

A pass reads a key twice and writes a pair once, 20 bytes for each of n pairs; what binds it is the ranks inside of a
block, sums along it of 2^BITS counters, two in an int.
"""
import triton
import triton.language as tl

from kernels.triton_gpu import device, launch

BITS, BLOCK, WARPS = 4, 512, 4  # of a digit; keys of a program; warps of a program
CHUNK, LISTS = 32, 32  # rows of a list that are added beforehand; lists of a program
CHUNKS = 8  # of a program


def block_for(size, block):
    """The elements of a program: block, and in the interpreter as many as there are, since its programs take turns.
    size: of the data, an int."""
    return min(max(1 << (size - 1).bit_length(), 16), 1 << 14) if device.INTERPRETED and size else block


def ordered(keys, size, low, bits, near):
    """Pointers to the keys in ascending order, and to the place where each stood; equal ones stay in their order. keys:
    pointer to int32, size of them. low: the least, an int. bits: of the largest key - low; what has more is anywhere.
    near: `Arrays`."""
    block, digits = block_for(size, BLOCK), 1 << BITS
    blocks = launch.programs(size, block)
    *pairs, counts, totals = launch.workspace(near, empty=[
        (n, "int32") for n in (size, size, size, size, digits * blocks, digits)])  # fmt: skip
    place = None
    for turn, shift in enumerate(range(0, max(bits, 1), BITS)):
        to_keys, to_place = pairs[2 * (turn % 2) : 2 * (turn % 2) + 2]
        told = dict(warps=WARPS, DIGITS=digits, BLOCK=block)
        launch.run(_count, blocks, near, counts, keys, low, shift, size, **told)
        added_before(counts, totals, digits, blocks, near)
        launch.run(_move, blocks, near, to_keys, to_place, keys, place, counts, totals, low, shift, size, **told)
        keys, place = to_keys, to_place
    return keys, place


def added_before(counts, totals, rows, columns, near):
    """Turns each count into the sum of those before it in its row, and writes the sums of the rows. counts: pointer to
    (rows, columns) int32. totals: pointer to (rows,) int32. near: `Arrays`."""
    block, together = block_for(columns, BLOCK), rows if device.INTERPRETED else 1
    launch.run(_added_before, rows // together, near, counts, totals, columns, ROWS=together, BLOCK=block)


def begins(keys, size, lists, near):
    """A pointer to where the list of each key 0 .. lists begins, (lists + 1,) int32. keys: pointer to int32, ascending,
    size of them. near: `Arrays`."""
    (begin,) = launch.workspace(near, empty=[(lists + 1, "int32")])
    block = block_for(lists + 1, BLOCK)
    launch.run(_begins, launch.programs(lists + 1, block), near, begin, keys, size, size.bit_length(), lists + 1,
               BLOCK=block)  # fmt: skip
    return begin


def rows_for(size):
    """How many rows hold size of them and the sums of their chunks. size: int."""
    return size + launch.programs(size, CHUNK)


def add_chunks(values, size, columns, near):
    """Writes the sums of CHUNK rows each behind the rows. values: pointer to (rows_for(size), columns) float32. near:
    `Arrays`."""
    block = block_for(launch.programs(size, CHUNK), CHUNKS)
    launch.run(_add_chunks, launch.programs(size, CHUNK * block), near, values, size, C=columns, CHUNK=CHUNK,
               CHUNKS=block)  # fmt: skip


@triton.jit
def digits_of(keys, low, shift, size, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    """Of a block of keys: their places, which there are, the keys, their digits, and (DIGITS / 2, BLOCK) ints, two
    counters each, in whose halves stands 1 where a key has that digit. keys: pointer. low, shift, size: of the sort and
    of the pass. DIGITS, BLOCK: of the program."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    key = tl.load(keys + i, mask=inside, other=0)
    digit = ((key - low) >> shift) & (DIGITS - 1)
    own = (tl.where(inside, digit >> 1, DIGITS))[None, :] == tl.arange(0, DIGITS // 2)[:, None]
    return i, inside, key, digit, tl.where(own, (1 << ((digit & 1) * 16))[None, :], 0)


@triton.jit(do_not_specialize=["low", "shift", "size"])
def _count(counts, keys, low, shift, size, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    _, _, _, _, hits = digits_of(keys, low, shift, size, DIGITS, BLOCK)
    both, at = tl.sum(hits, 1), 2 * tl.arange(0, DIGITS // 2) * tl.num_programs(0) + tl.program_id(0)
    tl.store(counts + at, both & 0xFFFF)
    tl.store(counts + at + tl.num_programs(0), both >> 16)


@triton.jit(do_not_specialize=["columns"])
def _added_before(counts, totals, columns, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, before = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.zeros((ROWS,), tl.int32)
    for first in range(0, columns, BLOCK):
        i = first + tl.arange(0, BLOCK)[None, :]
        at = counts + row[:, None] * columns + i
        count = tl.load(at, mask=i < columns, other=0)
        tl.store(at, before[:, None] + tl.cumsum(count, 1) - count, mask=i < columns)
        before += tl.sum(count, 1)
    tl.store(totals + row, before)


@triton.jit(do_not_specialize=["low", "shift", "size"])
def _move(
    to_keys, to_place, keys, place, counts, totals, low, shift, size, DIGITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i, inside, key, digit, hits = digits_of(keys, low, shift, size, DIGITS, BLOCK)
    d = tl.arange(0, DIGITS)
    total = tl.load(totals + d)
    begin = tl.cumsum(total, 0) - total + tl.load(counts + d * tl.num_programs(0) + tl.program_id(0))
    both = tl.sum(tl.where(hits > 0, tl.cumsum(hits, 1), 0), 0)
    to = tl.gather(begin, digit, 0) + ((both >> ((digit & 1) * 16)) & 0xFFFF) - 1
    tl.store(to_keys + to, key, mask=inside)
    tl.store(to_place + to, i if place is None else tl.load(place + i, mask=inside, other=0), mask=inside)


@triton.jit
def count_below(keys, size, steps, limit):
    """How many of ascending keys are below each limit. keys: pointer to int32, size of them. steps: bits of size.
    limit: int32 block."""
    low, high = limit * 0, limit * 0 + size
    for _ in range(steps):
        middle = (low + high) >> 1
        below = (tl.load(keys + middle, mask=low < high, other=0) < limit) & (low < high)
        low, high = tl.where(below, middle + 1, low), tl.where(below, high, middle)
    return low


@triton.jit(do_not_specialize=["size", "steps", "count"])
def _begins(begin, keys, size, steps, count, BLOCK: tl.constexpr):
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
def sums_of(values, first, last, size, C: tl.constexpr, CHUNK: tl.constexpr):
    """The sums of the rows first .. last - 1, in their order, a tuple of C float64 blocks: whole chunks as one number.
    values, size: of `add_chunks`. first, last: int32 blocks. C: columns. CHUNK: rows of
    a chunk."""
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
