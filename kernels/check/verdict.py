"""The result of a check, and its report."""
import shutil
import textwrap
from dataclasses import dataclass, field

from kernels.check.grade import LESS_ACCURATE, RIGHT, WRONG

TIMES = {  # of a report, by the number that it needs
    "theirs_us": ("yours", "{shape} {dtype}: {theirs_us:.1f} us, {theirs_copy:.0f} % of the copy limit"),
    "ours_us": ("{backend}", "{ours_us:.1f} us, {ours_copy:.0f} % of it; yours takes {ratio:.2f} times as long"),
}


@dataclass(frozen=True)
class Verdict:
    """The result of a check. It is true where the function is right, less accurate or not, and with `strict` only where
    it is as exact as it should be and breaks no law; its text is the report.

    error: the worst, in units of the allowed error. less: where it is less accurate, a line for each dtype. mend: the
    order of operations that would mend it, or "". untested: what is held at one value. kind: "" or of `case.KINDS`.
    smallest: the smallest failing input. cause: a guess, or "". code: can be pasted and run.
    """

    op: str
    function: str
    dtypes: tuple
    seed: int
    examples: int
    error: float
    strict: bool = False
    less: tuple = ()
    mend: str = ""
    laws: tuple = ()
    notes: tuple = ()
    untested: tuple = ()
    kind: str = ""
    message: str = ""
    smallest: str = ""
    cause: str = ""
    code: str = ""
    speed: dict = field(default_factory=dict)

    @property
    def grade(self):
        """"right", "right, less accurate" or "wrong"."""
        return WRONG if self.kind else LESS_ACCURATE if self.less else RIGHT

    def __bool__(self):
        return self.grade == RIGHT or self.grade == LESS_ACCURATE and not self.strict

    def __str__(self):
        if self.kind:
            headline = f"{self.kind.upper()}: {self.function} does not compute {self.op}."
            parts = [("failure", part) for part in self.message.split("; ")] + [("smallest input", self.smallest)]
            parts += [("likely cause", self.cause)] * bool(self.cause)
        else:
            headline = f"{self.grade.upper()}: {self.function} computes {self.op}."
            parts = [("less accurate", line) for line in self.less] + [("would mend it", self.mend)] * bool(self.mend)
            parts += [("tested", f"{self.examples} examples of {', '.join(self.dtypes)} (seed {self.seed})")]
            parts += [("error", f"{self.error:.2f} of the allowed error at worst")] * (not self.less)
            parts += [("law holds", law) for law in self.laws] + [("note", note) for note in self.notes]
        parts += [("not tested", "; ".join(self.untested))] * bool(self.untested)
        parts += [[x.format(**self.speed) for x in part] for name, part in TIMES.items() if name in self.speed]
        return report(headline, parts) + (f"\n\nThis code shows it:\n\n{self.code}" if self.code else "")

    __repr__ = __str__


def report(headline, parts):
    """A headline and lines of a name and a text, wrapped to the terminal. A name that repeats is printed once.
    headline: text. parts: pairs of texts."""
    wrap = textwrap.TextWrapper(shutil.get_terminal_size().columns - 1, break_long_words=False, break_on_hyphens=False)
    lines, last = [wrap.fill(headline)], ""
    wrap.subsequent_indent = " " * 18
    for name, text in parts:
        wrap.initial_indent = f"  {'' if name == last else name:<16}"
        lines.append(wrap.fill(text))
        last = name
    return "\n".join(lines)
