"""Worked examples of `ref.consistency`."""
from ref import schedules

ARGUMENTS = dict(
    sigmas=schedules.karras_sigmas(5)[:-1], student=lambda x0, eps: x0 + 0.2 * eps, target=lambda x0: x0,
    a=lambda student: student, b=lambda x0: x0, teacher=lambda denoise: denoise, k=300, K=1000,
)
