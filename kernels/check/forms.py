"""Forms in which the truth takes an argument as well: a number for each example in place of one, sizes that differ, a
default that is left out. A function may refuse a form, which is reported then; one that it takes it may not misread.

Of one case in EVERY the option "form" names one of these, so that a case can be made again.
"""
import inspect

import numpy as np

from kernels import registry
from kernels.ops.inputs import SETTINGS

EVERY = 5
MANY = 40  # arrays of a tree
STEPS = ("t", "s"), ("sigma", "sigma_next")  # a step goes from one to the other, which is less


def _count(a):
    """The number of examples."""
    return next((len(x) for x in registry.arrays(a, (*registry.PER_EXAMPLE, "abar", "w")).values() if x.ndim), 0)


def _own_weight(op, rng, a):
    if "w" in op.settings and not np.ndim(a["w"]):
        return {"w": np.array([SETTINGS["w"](rng) for _ in range(_count(a))])}


def _between(first):
    """One number at one end of a step, and one for each example at the other. first: whether it is one at the first."""
    def change(op, rng, a):
        names, count = next((pair for pair in STEPS if set(pair) <= a.keys()), None), _count(a)
        if not names or not count:
            return None
        high, low = np.max(a[names[0]])[()], np.min(a[names[1]])[()]
        whole = isinstance(high, np.integer)
        if first:
            made = rng.integers(low, high, count) if whole else low + (high - low) * rng.uniform(0, 0.99, count)
        else:
            made = rng.integers(low + 1, high + 1, count) if whole else low + (high - low) * rng.uniform(0.01, 1, count)
        u = {} if a.get("u") is None else {"u": int(np.max(a["u"]))}
        return u | {names[0]: high.item() if first else made, names[1]: made if first else low.item()}

    return change


def _other_size(op, rng, a):
    if {"real_logits", "fake_logits"} <= a.keys():
        fake = a["fake_logits"]
        return {"fake_logits": np.concatenate([fake, -fake[: 1 + len(fake) // 2]])}


def _many(op, rng, a):
    return {"grads": [g.copy() for g in (a["grads"] * MANY)[:MANY]]} if "grads" in a else None


FORMS = {  # in words: (operation, generator, arguments) -> those that change, or None where there are none
    "w of shape (B,)": _own_weight,
    "one time at the start of a step and (B,) at its end": _between(True),
    "(B,) times at the start of a step and one at its end": _between(False),
    "z = None at eta = 0": lambda op, rng, a: {"z": None, "eta": 0.0} if {"z", "eta"} <= a.keys() else None,
    "real and fake logits of different sizes": _other_size,
    "max_norm = inf": lambda op, rng, a: {"max_norm": np.inf} if "max_norm" in a else None,
    "a dict of gradients": lambda op, rng, a: (
        {"grads": {f"p{i}": g for i, g in enumerate(a["grads"])}} if "grads" in a else None),
    f"{MANY} arrays of gradients": _many,
}  # fmt: skip
DEFAULTS = "defaults left out"


def of(call):
    """The forms in which a function takes its arguments, and {form: why} of those that it refuses, which a call each
    shows. call: `adapter.Caller`. Returns a list, a dict."""
    if not call.forms:
        op = call.op
        choice = {n: call.held.get(n, choices[0]) for n, choices in op.options.items()}
        call.forms.update({form: _refused(call, form, choice) for form in (*FORMS, DEFAULTS)})
    return [form for form, why in call.forms.items() if why == ""]


def _refused(call, form, choice):
    """Why the function refuses a form: "" if it does not, None where there is no such form. Of a shape in which numbers
    for the examples do not broadcast by themselves."""
    arguments = call.op.make(np.random.default_rng(0), call.op.fit((2, 3)), call.op.dtypes[0], "normal", **choice)
    arguments |= {n: v for n, v in call.held.items() if n in arguments}
    if (arguments := changed(call, form, np.random.default_rng(0), arguments)) is None:
        return None
    try:
        with registry.quiet():
            call.op.truth(**registry.exact(arguments))
    except Exception:  # a default that does not fit the other arguments
        return None
    try:
        with registry.quiet():
            call.give(call.theirs(arguments | {"dtype": call.op.dtypes[0]}))
    except (Exception, SystemExit) as reason:  # whatever it is
        return f"{type(reason).__name__}: {reason}"
    return ""


def changed(call, form, rng, arguments):
    """The arguments in a form, None where it changes nothing or an argument that is held. call, form: as in `of`. rng:
    generator. arguments: dict."""
    if form == DEFAULTS:
        own = _defaults(call)
        return {n: x for n, x in arguments.items() if n not in own} if own & arguments.keys() else None
    made = None if call.op.rules else FORMS[form](call.op, rng, arguments)
    held = call.held.keys() | {n for n in ("t", "s", "sigma", "sigma_next") if call.held.keys() & {"times"}}
    return None if not made or made.keys() & held or not made.keys() <= call.names.keys() else arguments | made


def _defaults(call):
    """The arguments that truth and function both have a default of."""
    try:
        theirs = inspect.signature(call.function).parameters
    except (TypeError, ValueError):
        return set()
    return {n for n, p in call.op.takes.items() if p.default is not p.empty and n not in call.held
            and n in call.names and call.names[n] in theirs and theirs[call.names[n]].default is not p.empty}
