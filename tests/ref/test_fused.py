"""Each fused truth, written out again from the plain equations, bit for bit; its noise is (seed, stream)'s and no
other."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import diffusion, flow, fused, guidance, optim, philox, tree
from ref.nets import mlp
from tests.ref import ABAR, SEEDS, SHAPES, arrays

WORD64 = st.integers(0, 2**64 - 1)
ETA, CLIP, VARIANCE = st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([None, 1.0]), st.sampled_from(["small",
                                                                                                       "large"])


def times(shape, seed):
    """A t for each example and an s below it."""
    rng = np.random.default_rng(seed)
    t = rng.integers(1, 20, shape[0])
    return t, rng.integers(0, t)


def same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@given(shape=SHAPES, seed=WORD64, stream=WORD64, w=st.floats(-2, 8), eta=ETA, clip=CLIP, variance=VARIANCE,
       history=st.booleans())
def test_every_fused_step_is_its_composition(shape, seed, stream, w, eta, clip, variance, history):
    xt, uncond, cond, x0_last = arrays(shape, seed, 4)
    (t, s), z, guided = times(shape, seed), philox.normal(seed, shape, stream), guidance.guide(uncond, cond, w)
    x0_last, u = (x0_last, t + 1) if history else (None, None)
    x0_hat = diffusion.x0_from_eps(xt, guided, t, ABAR)
    same(
        [fused.q_sample_noise(xt, t, seed, ABAR, stream), *fused.eps_loss_grad(uncond, cond),
         *fused.eps_loss_noise(xt, seed, stream),
         fused.guided_ddpm_step(xt, uncond, cond, w, t, s, seed, ABAR, variance, clip, stream),
         fused.guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, ABAR, clip, stream),
         *fused.guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, ABAR)],
        [diffusion.q_sample(xt, t, z, ABAR), diffusion.eps_loss(uncond, cond),
         diffusion.eps_loss_backward(1.0, uncond, cond)[0],
         diffusion.eps_loss(xt, z), diffusion.eps_loss_backward(1.0, xt, z)[0],
         diffusion.ddpm_step(xt, guided, t, s, z, ABAR, variance, clip),
         diffusion.ddim_step(xt, guided, t, s, z, eta, ABAR, clip),
         diffusion.dpmpp_2m_step(xt, x0_hat, x0_last, u, t, s, ABAR), x0_hat],
    )  # fmt: skip
    if not history:  # of first order it is DDIM
        ddim = fused.guided_ddim_step(xt, uncond, cond, w, t, s, 0, 0.0, ABAR)
        out = fused.guided_dpmpp_2m_step(xt, uncond, cond, w, None, None, t, s, ABAR)[0]
        np.testing.assert_allclose(out, ddim, rtol=0, atol=1e-12 * np.abs(x0_hat).max(initial=1))


@given(shape=SHAPES, seed=WORD64, stream=WORD64)
def test_eps_loss_noise_regenerates_the_noise_of_q_sample_noise(shape, seed, stream):
    """With x0 = 0 and abar = 0 the forward noising is its noise; against that the loss is 0."""
    noise = fused.q_sample_noise(np.zeros(shape), 1, seed, np.array([1.0, 0.0]), stream)
    loss, deps_hat = fused.eps_loss_noise(noise, seed, stream)
    assert loss == 0 and not deps_hat.any()


@given(shape=SHAPES, seed=SEEDS, w=st.floats(-2, 8))
def test_guided_flow_step_goes_along_the_straight_line(shape, seed, w):
    """With the right velocity it ends on `interpolate`'s point, and w = 1 and w = 0 use one network alone."""
    (x0, eps, other), (t, s) = arrays(shape, seed, 3), times(shape, seed)
    t, s, v = t / 20, s / 20, eps - x0
    xt = flow.interpolate(x0, eps, t)
    for uncond, cond, weight in ((other, v, 1.0), (v, other, 0.0), (v, v, w)):
        got = fused.guided_flow_step(xt, uncond, cond, weight, t, s)
        np.testing.assert_allclose(got, flow.interpolate(x0, eps, s), atol=1e-12)


@given(shape=SHAPES, seed=SEEDS)
def test_heun_step_is_two_steps_of_euler_taken_together(shape, seed):
    (x, denoised, denoised_next), (t, s) = arrays(shape, seed, 3), times(shape, seed)
    sigma, sigma_next = ((time + 1.0).reshape((-1,) + (1,) * (x.ndim - 1)) for time in (t, s))
    guess = x + (sigma_next - sigma) * (x - denoised) / sigma
    again = x + (sigma_next - sigma) * (guess - denoised_next) / sigma_next
    out = fused.heun_step(x, denoised, denoised_next, t + 1.0, s + 1.0)
    np.testing.assert_allclose(out, (guess + again) / 2, rtol=1e-12, atol=1e-12 * np.abs(again).max(initial=1))


@given(shape=SHAPES, seed=SEEDS, decay=st.floats(0, 1))
def test_adam_ema_step_is_adam_and_the_average_of_the_new_weights(shape, seed, decay):
    p, g, m, v, avg = arrays(shape, seed, 5)
    settings = (3, 0.1, 0.9, 0.99, 1e-8, 0.05)
    *new, avg_new = fused.adam_ema_step(p, g, m, v * v, avg, *settings, decay)
    same([*new, avg_new], [*optim.adam_step(p, g, m, v * v, *settings), optim.ema_step(avg, new[0], decay)])


NETS = {
    "simple_mlp": mlp.simple_mlp_init(3, 6, 5, np.float64),
    "residual": tree.map(lambda a: a + 0.1 * philox.normal(a.size, a.shape),
                         mlp.residual_init(3, 6, 4, 2, 3, 6, np.float64)),
}


@pytest.mark.parametrize("net, w", [("simple_mlp", None), ("residual", None), ("residual", 2.5)])
@pytest.mark.parametrize("eta, predict, clip",
                         [(0.0, "eps", None), (0.6, "eps", 1.0), (0.0, "x0", 0.8), (1.0, "v", None)])
def test_mlp_sample_is_the_loop_written_out(net, w, eta, predict, clip):
    params, x, labels = NETS[net], philox.normal(0, (3, 6)), np.array([2, 0, 1])
    got = fused.mlp_sample(params, x, [20, 11, 4, 0], ABAR, eta, 5, 2**64 - 1, None
                           if w is None else (labels, w), predict, clip)

    def eps_hat(x, t, labels):
        rows = np.array([t] * 3)
        out = mlp.simple_mlp(params, x, rows)[0] if net == "simple_mlp" else mlp.residual(params, x, rows, labels)[0]
        return {"eps": out, "x0": diffusion.eps_from_x0(x, out, t, ABAR),
                "v": diffusion.eps_from_v(x, out, t, ABAR)}[predict]

    for t, s, stream in ((20, 11, 2**64 - 1), (11, 4, 0), (4, 0, 1)):  # the streams go round
        e = eps_hat(x, t, np.array([3, 3, 3]))
        e = e if w is None else e + w * (eps_hat(x, t, labels) - e)
        x = diffusion.ddim_step(x, e, t, s, philox.normal(5, (3, 6), stream), eta, ABAR, clip)
    np.testing.assert_allclose(got, x, rtol=1e-13, atol=1e-13)


def test_mlp_train_goes_on_from_where_it_stood_to_the_bit():
    data, params = np.sign(philox.normal(1, (9, 6))), NETS["simple_mlp"]
    before = {name: p.copy() for name, p in params.items()}
    settings = dict(batch=4, lr=1e-2, seed=7, abar=ABAR, weight_decay=0.1, decay=0.9)
    whole, end, losses = fused.mlp_train(params, data, 5, **settings)
    half, state, first = fused.mlp_train(params, data, 2, **settings)
    rest, again, last = fused.mlp_train(half, data, 3, state=state, **settings)
    assert again["step"] == end["step"] == 5 and state["step"] == 2
    np.testing.assert_array_equal(np.append(first, last), losses)
    for name in params:
        np.testing.assert_array_equal(params[name], before[name])
        for a, b in ((rest, whole), (again["m"], end["m"]), (again["v"], end["v"]), (again["average"], end["average"])):
            np.testing.assert_array_equal(a[name], b[name])


def test_mlp_train_takes_the_step_that_the_equations_say():
    data, params = np.sign(philox.normal(1, (9, 6))), NETS["simple_mlp"]
    new, state, (loss,) = fused.mlp_train(params, data, 1, 4, 1e-2, 7, ABAR, decay=0.25)
    x0, t, eps = data[philox.below(7, 4, 9, 4)], 1 + philox.below(7, 4, 20, 5), philox.normal(7, (4, 6), 7)
    eps_hat, cache = mlp.simple_mlp(params, diffusion.q_sample(x0, t, eps, ABAR), t)
    assert loss == diffusion.eps_loss(eps_hat, eps)
    for name, g in mlp.simple_mlp_backward(diffusion.eps_loss_backward(1.0, eps_hat, eps)[0], params, cache)[1].items():
        p, m, v = optim.adam_step(params[name], g, 0 * g, 0 * g, 1, 1e-2, 0.9, 0.999, 1e-8, 0.0)
        for got, want in ((new[name], p), (state["m"][name], m), (state["v"][name], v),
                          (state["average"][name], 0.25 * params[name] + 0.75 * p)):
            np.testing.assert_array_equal(got, want)


def test_mlp_train_learns():
    data = np.repeat([[1.0, -1.0, 1.0, 1.0, -1.0, -1.0]], 3, axis=0)
    losses = fused.mlp_train(mlp.simple_mlp_init(0, 6, 32), data, 600, 32, 3e-3, 0, ABAR)[2]
    assert np.mean(losses[-100:]) < 0.6 * np.mean(losses[:20])


def test_the_defaults_are_the_small_variance_no_clip_and_stream_0():
    xt, uncond, cond = np.random.default_rng(8).standard_normal((3, 2, 3)) * 3
    z = philox.normal(5, (2, 3), 0)
    guided = guidance.guide(uncond, cond, 2.0)
    np.testing.assert_array_equal(fused.guided_ddpm_step(xt, uncond, cond, 2.0, 9, 4, 5, ABAR),
                                  diffusion.ddpm_step(xt, guided, 9, 4, z, ABAR, "small", None))
    np.testing.assert_array_equal(fused.guided_ddim_step(xt, uncond, cond, 2.0, 9, 4, 5, 0.5, ABAR),
                                  diffusion.ddim_step(xt, guided, 9, 4, z, 0.5, ABAR, None))
    np.testing.assert_array_equal(fused.q_sample_noise(xt, 9, 5, ABAR), diffusion.q_sample(xt, 9, z, ABAR))
    np.testing.assert_array_equal(fused.eps_loss_noise(xt, 5)[0], diffusion.eps_loss(xt, z))


@pytest.mark.parametrize("call", [
    lambda x, seed, stream: fused.q_sample_noise(x, 9, seed, ABAR, stream),
    lambda x, seed, stream: fused.eps_loss_noise(x, seed, stream)[1],
    lambda x, seed, stream: fused.guided_ddpm_step(x, x, x, 1.0, 9, 4, seed, ABAR, stream=stream),
    lambda x, seed, stream: fused.guided_ddim_step(x, x, x, 1.0, 9, 4, seed, 1.0, ABAR, stream=stream),
], ids=["q_sample_noise", "eps_loss_noise", "guided_ddpm_step", "guided_ddim_step"])
def test_another_seed_or_stream_is_another_result_and_the_same_is_the_same(call):
    x = np.linspace(-1, 1, 8).reshape(2, 4)
    one = call(x, 7, 3)
    np.testing.assert_array_equal(one, call(x, 7, 3))
    for seed, stream in ((8, 3), (7, 4), (3, 7), (7 + 2**32, 3), (7, 3 + 2**32)):
        assert not np.isclose(one, call(x, seed, stream), rtol=1e-6, atol=0).any()
