"""One row of the benchmark: the kernel is held to the truth on the arguments that will be timed, each peer is looked at
too, and only then are they timed, in turn, together with this machine's copy and triad of as many bytes."""
from functools import partial

import numpy as np

from bench import clocks, machine, peers, targets
from kernels import registry, timing, tolerance

DTYPE = "float32"
CHECKED = (2, 3, 256, 256)  # on the GPU, arrays are too large for the host to check: these are, and the large run's first two examples


PEERS = {"numba_cpu": peers.HOST, "triton_gpu": peers.ON_GPU}  # of each backend that can be timed


def rows(ops, backends, shapes=targets.shapes):
    """Every row there is to measure: (op, row, options, backend, shape, dtype). ops: records. backends: names. shapes: of op's name and
    a backend, the tuples."""
    return [
        (op, row, options, backend, shape, dtype)
        for backend in backends
        for shape in dict.fromkeys(shape for op in ops for shape in shapes(op.name, backend))
        for op in ops
        if shape in shapes(op.name, backend)
        for row, options in op.bench.items()
        for dtype in [DTYPE, *(registry.HALVES if op.half and backend == "triton_gpu" and shape != targets.SMALL else ())]
        if registry.kernel(op, backend) is not None and op.flops is None  # the loops: see bench.trajectory
    ]


def into(op, own, dtype, fresh):
    """The arguments that say where op writes: over its state as a training loop does, else into memory that is already there.

    op: `registry.Op`. own: its arguments. dtype: name. fresh: makes an array for the result. Returns {name: value}.
    """
    extra = {"dtype": dtype} if op.takes_dtype else {}
    if op.in_place:
        out = tuple(own[name] for name in op.in_place)
        extra["out"] = out if len(out) > 1 else out[0]
    elif op.writes:
        out = tuple(fresh() for _ in range(op.writes))
        extra["out"] = out if len(out) > 1 else out[0]
    return extra


def prepared(op, function, arguments, shape):
    """A call of nothing that runs the kernel on its own copies of the arguments. op, function, arguments, shape: as in `row`. Returns the function."""
    own = {k: np.array(v) if k in registry.arrays(arguments) else v for k, v in arguments.items()}
    return partial(function, **own, **into(op, own, DTYPE, lambda: np.empty(shape, DTYPE)))


def row(op, label, options, backend, shape, seconds, libraries, say):
    """Checks and times one row.

    op: `registry.Op`. label, options: its row. backend: name. shape: tuple. seconds: of timing. libraries: columns of
    peers that can be used here. say: takes a line about a peer that was left out.
    Returns {column: value}; where the kernel is wrong, `failure` says how and nothing was timed.
    """
    arguments = timing.problem(op, options, shape)
    moved = registry.bytes_moved(op, arguments, DTYPE)
    result = empty(op, label, backend, shape, DTYPE, moved)
    expected = registry.expected(op, arguments, DTYPE)
    run = prepared(op, registry.kernel(op, backend), arguments, shape)
    try:
        for out, rule in zip(registry.outputs(run()), expected, strict=True):
            tolerance.assert_matches(out, rule)
    except Exception as reason:  # whatever it is, it is the verdict, and nothing is timed
        return result | {"failure": f"{type(reason).__name__}: {reason}"}
    contestants = {("kernel", ""): run, ("copy", ""): timing.copy(moved), ("triad", ""): machine.triad(moved)}
    for column in libraries:
        for how, peer in sound_peers(op, arguments, shape, column, backend, expected, say):
            contestants[column, how] = peer
    return result | compared(timing.interleave(contestants, seconds), moved)


def empty(op, label, backend, shape, dtype, moved):
    """A row with nothing measured yet. moved: bytes. The rest as in `row`."""
    return dict(
        op=op.name, row=label, backend=backend, shape=shape, dtype=dtype, bytes=moved, failure="", median_us=None, gbs=None,
        copy_gbs=None, triad_gbs=None, copy=None, triad=None, launch=None, float32_copy=None,
    ) | {k: v for c in peers.COLUMNS for k, v in ((c, None), (f"{c}_how", ""))}  # fmt: skip


def gpu_row(op, label, options, backend, shape, dtype, seconds, libraries, say):
    """`row` on the GPU, its data made there. A small shape is timed by the host's clock over many calls, beside the bare
    launches that a call makes; a large one by events. The arguments as in `row`, and dtype: name.
    """
    from kernels.triton_gpu import arrays, launch

    few = timing.problem(op, options, CHECKED, dtype=dtype)
    few_there = registry.sent(few, arrays.send)
    data = [name for name in registry.arrays(few)]
    arguments = timing.problem(op, options, (shape[0],) + (1,) * (len(shape) - 1), dtype=dtype)
    arguments |= {"shape": shape} if "shape" in arguments else {}
    for i, name in enumerate(data):
        arguments[name] = _on_gpu(shape, dtype, i, positive=name == "v" or name == "x" and "logits" in data)  # a second moment; pixels
    size = int(np.prod(shape)) * (2 if dtype in registry.HALVES else 4)
    moved = size * (len(data) + op.writes)
    result = empty(op, label, backend, shape, dtype, moved)
    function, expected = registry.kernel(op, backend), registry.expected(op, few, dtype)
    try:
        for out, rule in zip(registry.call(op, function, few_there, dtype), expected, strict=True):
            tolerance.assert_matches(arrays.receive(out), rule)
        _same_as_alone(op, function, arguments, shape, dtype, data)
    except Exception as reason:
        return result | {"failure": f"{type(reason).__name__}: {reason}"}
    run = partial(function, **arguments, **into(op, arguments, dtype, lambda: _on_gpu(shape, dtype, 9, positive=False)))
    contestants = {("kernel", ""): run, ("copy", ""): timing.gpu_copy(moved)}
    if dtype == DTYPE:
        for column in [c for c in libraries if c != "compile" or shape != targets.SMALL]:  # its launch is not ours to judge
            found = sound_peers(op, few_there | {"on_gpu": True}, CHECKED, column, backend, expected, say, few)
            if found:
                made = peers.ON_GPU[column](op.name, arguments | {"on_gpu": True}, shape)
                contestants |= {(column, how): made[how] for how, _ in found}
    if shape == targets.SMALL:
        contestants[("launch", "")] = _bare(launch, run)
        return result | compared(timing.interleave(contestants, seconds, clock=clocks.calls), moved)
    return result | compared(timing.interleave(contestants, seconds, clock=clocks.events), moved)


def _on_gpu(shape, dtype, stream, positive):
    """Normals (uniforms where only positive numbers make sense) made where they are used; in bfloat16 by torch's memory."""
    from kernels.triton_gpu import arrays, philox

    if positive:
        return philox.uniform(1, shape, stream)
    out = arrays.send(np.zeros(1, np.float32).astype(registry.like(dtype))) if dtype == "bfloat16" else None
    return philox.normal(1, shape, stream, dtype=dtype, out=None if out is None else out.new_empty(shape))


def _same_as_alone(op, function, arguments, shape, dtype, data):
    """The first two examples of the large run are to the bit what the kernel makes of them alone; that is in its shape checked."""
    from kernels.triton_gpu import arrays

    if op.sums or shape[0] < 2:
        return
    two = (2,) + tuple(shape[1:])
    alone = dict(arguments) | {name: arguments[name][:2] for name in data} | ({"shape": two} if "shape" in arguments else {})
    alone |= {name: arguments[name][:2] for name in registry.PER_EXAMPLE if isinstance(arguments.get(name), np.ndarray)}
    for large, small in zip(registry.call(op, function, arguments, dtype), registry.call(op, function, alone, dtype), strict=True):
        if not np.array_equal(arrays.receive(large[:2]), arrays.receive(small)):
            raise tolerance.Mismatch(f"{op.name} {shape}: an example in its batch is not the example alone")


def _bare(launch, run):
    """The launches that run makes, with nothing before them: what Triton itself needs."""
    made, before = [], launch.run

    def recorded(kernel, grid, arrays, *args, warps=4, **constants):
        made.append(partial(kernel[(grid,)], *args, num_warps=warps, enable_fp_fusion=False, **constants))
        before(kernel, grid, arrays, *args, warps=warps, **constants)

    launch.run = recorded
    try:
        memory = run()
    finally:
        launch.run = before

    def bare(memory=memory):
        for one in made:
            one()

    return bare


def sound_peers(op, arguments, shape, column, backend, expected, say, on_host=None):
    """The variants of one library that agree with the truth, as (how, call).

    op, arguments, shape, backend, say: as in `row`. column: the library's. expected: the rules of the outputs. on_host: the
    arguments on the host, where they are not there.
    """
    found = []
    try:
        made = PEERS[backend][column](op.name, arguments, shape)
    except Exception as reason:
        say(f"{column} left out at {op.name} {shape}: {type(reason).__name__}: {_first_line(reason)}")
        return found
    for how, call in made.items():
        try:
            peers.check(op.name, on_host or arguments, shape, peers.home(call(), shape), expected)
            found.append((how, call))
        except Exception as reason:
            say(f"{column} ({how}) left out at {op.name} {shape}: {type(reason).__name__}: {_first_line(reason)}")
    return found


def compared(times, moved):
    """The numbers of a row from its times: of a library's variants, the fastest counts.

    times: {(column, how): (rounds,) nanoseconds}, with kernel and copy among them. moved: bytes. Returns {column: value}.
    """
    ours = times["kernel", ""]
    found = {"median_us": float(np.median(ours)) / 1e3, "gbs": moved / float(np.median(ours))}
    for limit in ("copy", "triad"):
        if (limit, "") in times:
            found[limit] = 100 * timing.times_faster(ours, times[limit, ""])
            found[f"{limit}_gbs"] = moved / float(np.median(times[limit, ""]))
    if ("launch", "") in times:
        found["launch"] = 1 / timing.times_faster(ours, times["launch", ""])
    for column in {c for c, _ in times} - {"kernel", "copy", "triad", "launch"}:
        how = min((h for c, h in times if c == column), key=lambda h: np.median(times[column, h]))
        found |= {column: timing.times_faster(ours, times[column, how]), f"{column}_how": how}
    return found


def _first_line(reason):
    return (str(reason).strip().splitlines() or ["no reason given"])[0][:200]
