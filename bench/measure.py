"""One row of the benchmark: the kernel is checked against the truth on the arguments that will be timed, its peers are
checked, and only then are they timed, in turn, together with this machine's limits: copy and triad of as many bytes, or
its peak.

Where the arrays are too large for the host to check, fewer examples are: on a GPU a smaller shape, and the first
examples of the timed call must have the bits that they have alone; of a trajectory the first examples of the timed
call; of training the first steps.
"""
import inspect
import math
from functools import partial

import numpy as np

from bench import clocks, machine, peers, targets
from bench.peers.equations import EQUATIONS
from bench.peers.loops import TORCH as LOOPS
from bench.peers.sound import LOOSE, Truth
from kernels import registry, timing, tolerance
from kernels.prepare import launches_of, prepare

DTYPE, SHORT = "float32", (32, 784)  # so few elements that a call costs what comes before its launches
CHANGING = "u", "t", "s", "sigma", "sigma_next", "step", "seed", "stream"  # from call to call of a loop
BACKENDS = ("numba_cpu", "triton_gpu")
ON_GPU, IN_LOOPS = (2, 3, 256, 256), 8  # what is checked: a shape; examples
FEW_ROWS = 512  # and queries of attention, or up to twice as many
STEPS, TRAINED = 5, 2.0  # of training, that are checked; its rule is NumPy's worst of four orders, which others exceed
ROUNDED = 2.0**16  # an ulp of bfloat16 in those of float32; tests hold such products to NumPy rounded alike
NUMBERS = (
    "bytes", "median_us", "spread", "error", "gbs", "copy_gbs", "triad_gbs", "copy", "triad", "launch", "float32_copy",
    "gflops", "peak_gflops", "peak", *peers.COLUMNS,
)  # fmt: skip


def rows(ops, backends, shapes=None):
    """Every row to measure: (op, row, options, backend, shape, dtype). ops: records. backends: names."""
    found = []
    for backend, op in ((b, op) for b in backends for op in ops if registry.kernel(op, b) is not None):
        gpu = backend == "triton_gpu"
        for label, options in op.bench.items():
            if options.get("on", backend) != backend:
                continue
            own = [options["shape"]] if "shape" in options else None
            for shape in shapes or own or targets.shapes(op.name, label, backend, op.rows):
                halves = registry.HALVES if gpu and op.half and not _short(op, label, backend, shape) else ()
                found += [(op, label, options, backend, shape, dtype) for dtype in (DTYPE, *halves)]
                if shape == SHORT and _preparable(op, options, gpu):
                    more = options | {"prepared": True}
                    found.append((op, f"{label}, prepared".lstrip(", "), more, backend, shape, DTYPE))
                for precision in op.precisions if gpu else ():
                    more = options | {"precision": precision}
                    found.append((op, f"{label}, {precision}", more, backend, shape, DTYPE))
    order = list(dict.fromkeys((backend, shape) for *_, backend, shape, _ in found))
    return sorted(found, key=lambda row: order.index(row[3:5]))


def _preparable(op, options, gpu):
    """Whether `kernels.prepare` takes the operation: no list of arrays, and on the CPU no sum."""
    few = registry.exact(timing.problem(op, options, (2, 3)))
    arrays = all(name in few for name in registry.arrays(few))
    return arrays and (gpu or not op.sums and len(registry.outputs(op.truth(**few))) == op.writes)


def _short(op, row, backend, shape):
    """Whether the row is about what a call costs: then it is timed by the host's clock, next to its bare launches."""
    return targets.demands(dict(op=op.name, row=row, backend=backend, shape=shape), op.rows, "launch")


def empty(op, label, backend, shape, dtype):
    """A row with nothing measured yet. op: record. label, backend, dtype: names. shape: tuple."""
    words = dict(op=op.name, row=label, backend=backend, shape=shape, dtype=dtype, failure="", target="", met="")
    return words | dict.fromkeys(NUMBERS) | {f"{c}_how": "" for c in peers.COLUMNS}


def row(op, label, options, backend, shape, dtype, seconds, libraries, say):
    """Checks and times one row. op: `registry.Op`. label, options: its row. backend, dtype: names. shape: tuple."""
    result, function = empty(op, label, backend, shape, dtype), registry.kernel(op, backend)
    gpu, loop, precision = backend == "triton_gpu", op.flops, options.get("precision")
    ahead, of_row = options.get("prepared"), ("precision", "shape", "on", "prepared")
    options = {name: value for name, value in options.items() if name not in of_row}
    own = bool(op.shapes) and not op.orders  # arrays and results have shapes of their own
    made = (_in_shapes if own else _on_gpu if gpu and not loop else _on_host)(op, options, backend, shape, dtype)
    few, few_there, arguments, few_shape = made
    if not loop:
        result["bytes"] = registry.bytes_moved(op, few, dtype) * math.prod(shape) // math.prod(few_shape)
    expected = registry.expected(op, few, dtype)
    extra = ({"dtype": dtype} if op.takes_dtype else {}) | ({"precision": precision} if precision else {})
    try:
        plain = called(op, function, arguments, shape, dtype, gpu, extra)
        run = _prepared(plain) if ahead else plain
        alone = own or few is not arguments and not (loop and few_shape != shape)
        found = function(**_own(few_there, gpu), **extra) if alone else run()
        loose = ROUNDED if precision else TRAINED if "steps" in few else 1
        result["error"] = _checked(found, expected, registry.carriers(backend)[1], loose)
        if gpu and not loop and not op.sums and not own:
            _same_alone(op, function, arguments, shape, backend, extra)
    except Exception as reason:  # whatever it is, it is the verdict, and nothing is timed
        return result | {"failure": f"{type(reason).__name__}: {reason}"}
    short = gpu and _short(op, label, backend, shape)
    contestants = {("kernel", ""): run} | _limits(result["bytes"], gpu, short and plain)
    if dtype == DTYPE or own and op.flops:  # products of halves are other work than those of float32
        truth = Truth(op, few, few_shape, expected, ROUNDED if gpu and loop else LOOSE)
        there = [c for c in peers.ON_GPU if not (short and c == "compile")]  # how torch.compile launches is its own
        columns = [c for c in libraries if not gpu or c in there]
        contestants |= sound_peers(op, truth, few_there, arguments, shape, columns, gpu, say)
    clock = clocks.calls if short else clocks.events if gpu else timing.wall
    times = timing.interleave(contestants, seconds, clock=clock)
    return result | compared(times, result["bytes"], op.flops and op.flops(**arguments), arguments.get("steps", 1))


def _on_host(op, options, backend, shape, dtype):
    """(what is checked, the same where the backend wants it, what is timed, the shape of what is checked)."""
    arguments = timing.problem(op, options, shape)
    if not op.flops:
        return arguments, arguments, arguments, shape
    send = registry.carriers(backend)[0]
    if "steps" in arguments:  # of training, fewer steps
        few, few_shape = arguments | {"steps": min(arguments["steps"], STEPS)}, shape
    else:  # of sampling, the first examples
        few_shape = (min(IN_LOOPS, shape[0]), *shape[1:])
        few = {k: v[:IN_LOOPS] if getattr(v, "shape", ()) == tuple(shape) else v for k, v in arguments.items()}
    return few, registry.sent(few, send, op), registry.sent(arguments, send, op), few_shape


def _in_shapes(op, options, backend, shape, dtype):
    """The same for an operation whose arrays are not of one shape; on a GPU one example is checked, of attention one
    head with fewer queries and keys."""
    send, gpu = registry.carriers(backend)[0], backend == "triton_gpu"
    few_shape = (1, *shape[1:]) if gpu else shape
    if heads := gpu and "q" in op.takes:
        rows = min(shape[2], FEW_ROWS + shape[2] % FEW_ROWS)  # as many past a tile as there are of the timed ones
        few_shape = (1, 1, rows, *shape[3:])
    few = timing.problem(op, options, few_shape, dtype=dtype)
    there = few
    if heads:  # one head again and again, since drawing them takes longer than timing them
        one = timing.problem(op, options, (1, 1, *shape[2:]), dtype=dtype)
        there = {n: np.tile(a, (*shape[:2], 1, 1)) if isinstance(a, np.ndarray) else a for n, a in one.items()}
    elif few_shape != shape:
        there = timing.problem(op, options, shape, dtype=dtype)
    return few, registry.sent(few, send, op), registry.sent(there, send, op), few_shape


def _on_gpu(op, options, backend, shape, dtype):
    """The same with the timed data made on the GPU."""
    few = timing.problem(op, options, ON_GPU, dtype=dtype)
    names = list(registry.arrays(few))
    arguments = timing.problem(op, options, (shape[0],) + (1,) * (len(shape) - 1), dtype=dtype)
    arguments |= {"shape": shape} if "shape" in arguments else {}
    for i, name in enumerate(names):
        positive = name == "v" or name == "x" and "logits" in names  # a second moment; pixels
        arguments[name] = _random(shape, dtype, i, positive)
    return few, registry.sent(few, registry.carriers(backend)[0], op), arguments, ON_GPU


def _random(shape, dtype, stream, positive=False):
    """Normals, or uniforms where only positive numbers make sense, made on the GPU."""
    from kernels.triton_gpu import philox

    if positive:
        return philox.uniform(1, shape, stream)
    return philox.normal(1, shape, stream, dtype=dtype)


def _own(arguments, gpu):
    """Copies of the data arrays on the host, so that a call in place leaves the arguments as they are."""
    data = registry.arrays(arguments)
    return {k: np.array(v) if k in data and not gpu else v for k, v in arguments.items()}


def called(op, function, arguments, shape, dtype, gpu, extra):
    """A call of nothing that runs the kernel on its own copies of the arguments. function: the backend's."""
    own, extra = _own(arguments, gpu), dict(extra)
    if op.writes and "out" in inspect.signature(function).parameters and not (op.shapes and not op.orders):
        fresh = (_random(shape, dtype, 9) if gpu else np.empty(shape, dtype) for _ in range(op.writes))
        out = tuple(own[name] for name in op.in_place) or tuple(fresh)
        extra["out"] = out if len(out) > 1 else out[0]
    return partial(function, **own, **extra)


def _prepared(run):
    """The same call, prepared, with what changes in a loop left open. run: from `called`."""
    changing = {name: x for name, x in run.keywords.items() if name in CHANGING}
    fixed = {name: x for name, x in run.keywords.items() if name not in CHANGING}
    return partial(prepare(run.func, **fixed), **changing)


def _checked(found, expected, receive, loose):
    """The worst error in units of the allowed one. Raises Mismatch where it is more than loose."""
    worst = 0.0
    for out, rule in zip(map(receive, registry.outputs(found)), expected, strict=True):
        out = out[: len(rule.truth)] if np.ndim(out) else out  # the first examples of a long trajectory
        units = tolerance.error(out, rule)
        if loose == 1:
            tolerance.assert_matches(out, rule)
        elif not units <= loose:
            raise tolerance.Mismatch(f"its error is {units:.3g} times the allowed one, expected at most {loose:.3g}")
        worst = max(worst, units)
    return worst


def _same_alone(op, function, arguments, shape, backend, extra):
    """The first examples of the timed call have the bits that they have without the others."""
    count, receive = min(2, shape[0]), registry.carriers(backend)[1]
    alone = {k: v[:count] if tuple(getattr(v, "shape", ())) == tuple(shape) else v for k, v in arguments.items()}
    alone |= {"shape": (count, *shape[1:])} if "shape" in arguments else {}
    rows = [name for name in registry.PER_EXAMPLE if isinstance(arguments.get(name), np.ndarray)]
    alone |= {name: arguments[name][:count] for name in rows}
    large, small = (registry.outputs(function(**a, **extra)) for a in (arguments, alone))
    for one, other in zip(large, small, strict=True):
        if not np.array_equal(receive(one[:count]), receive(other)):
            raise tolerance.Mismatch(f"{op.name} {shape}: an example in its batch is not the example alone")


def _limits(moved, gpu, launches):
    """What the machine can do, to time with the kernel. moved: bytes, None for arithmetic."""
    if moved is None:
        return {} if gpu else {("peak", ""): machine.peak()[0]}
    if not gpu:
        return {("copy", ""): timing.copy(moved), ("triad", ""): machine.triad(moved)}
    return {("copy", ""): timing.gpu_copy(moved)} | ({("launch", ""): _bare(launches)} if launches else {})


def _bare(run):
    """The launches that run makes with nothing before them: what Triton itself needs."""
    memory, launches = launches_of(run)

    def bare(memory=memory):
        for launch in launches:
            launch.bare()

    return bare


def sound_peers(op, truth, few, arguments, shape, columns, gpu, say):
    """The peers that agree with the truth, {(column, how): call} on the timed arguments. op: record. columns: names."""
    if op.name not in (*EQUATIONS, *LOOPS) and not op.name.startswith("layers."):
        say(f"{op.name}: compared with the NumPy backend only; bench/peers/equations.py has no entry for it")
    mark, found = {"on_gpu": True} if gpu else {}, {}
    for column in columns:
        try:
            made = peers.make(column, op, few | mark, truth.shape)
        except Exception as reason:
            say(f"{column} left out at {op.name} {shape}: {_first_line(reason)}")
            continue
        right = []
        for how, call in made.items():
            try:
                truth.check(call())
                right.append(how)
            except Exception as reason:
                say(f"{column} ({how}) left out at {op.name} {shape}: {_first_line(reason)}")
        if right and few is not arguments:
            made = peers.make(column, op, arguments | mark, shape)
        found |= {(column, how): made[how] for how in right}
    return found


def compared(times, moved, flops=None, steps=1):
    """The numbers of a row from its times: of a library's variants, the fastest counts. Returns {column: value}."""
    ours = times["kernel", ""]
    ns = float(np.median(ours))
    low, high = np.percentile(ours, [25, 75])
    found = {"median_us": ns / steps / 1e3, "spread": 100 * float(high - low) / ns, "gflops": flops and flops / ns}
    found |= {"gbs": moved / ns} if moved else {}
    for limit in ("copy", "triad"):
        if (limit, "") in times:
            found[limit] = 100 * timing.times_faster(ours, times[limit, ""])
            found[f"{limit}_gbs"] = moved / float(np.median(times[limit, ""]))
    if ("peak", "") in times:
        found["peak_gflops"] = machine.peak()[1] / float(np.median(times["peak", ""]))
        found["peak"] = 100 * found["gflops"] / found["peak_gflops"]
    if ("launch", "") in times:
        found["launch"] = 1 / timing.times_faster(ours, times["launch", ""])
    for column in {c for c, _ in times} & set(peers.COLUMNS):
        how = min((h for c, h in times if c == column), key=lambda h: np.median(times[column, h]))
        found |= {column: timing.times_faster(ours, times[column, how]), f"{column}_how": how}
    return found


def _first_line(reason):
    text = str(reason).strip() or "no reason given"
    return f"{type(reason).__name__}: {text.splitlines()[0][:200]}"
