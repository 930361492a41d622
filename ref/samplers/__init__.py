"""Samplers: from noise to data by a model, called at each entry of a list of times. One flat function each, in float64.

Discrete times descend to 0 (`ref.schedules.spaced_times`), noise levels too (`karras_sigmas`), flow times from 1 to 0.

    model(xt, t) -> eps, x0 or v  t an int, see `predict`  ddpm, ddim, ddim_invert, dpmpp_2m, dpmpp_2m_sde, unipc,
                                                           inpaint
    denoise(x, sigma) -> x0_hat   x = x0 + sigma eps       euler, heun, euler_ancestral
    velocity(x, t) -> v           x = (1 - t) x0 + t eps   flow_euler, flow_heun
    f(x, sigma) -> x0_hat         a consistency model      consistency

noise[i] is the (B, ...) noise of step i. The last may be left out, except by heun, which adds it before a step. With
zero terminal SNR, abar[T] = 0, a model predicts v or x0: eps says nothing about x0 there. With guidance a model, or
denoise or velocity, returns `ref.guidance.guide(uncond, cond, w)`, in a limited interval with w from `interval_weight`.
"""
from ref.samplers.levels import consistency, euler, euler_ancestral, flow_euler, flow_heun, heun
from ref.samplers.times import ddim, ddim_invert, ddpm, dpmpp_2m, dpmpp_2m_sde, inpaint, unipc
