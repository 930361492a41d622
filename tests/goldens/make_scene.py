"""Writes scene.npz and scene.json: what PyTorch, gsplat's and nerfacc's own PyTorch functions give for scenes, in
float64 on a CPU, with the gradients by autograd.

    pip install torch==2.13.0 && pip install --no-deps gsplat==1.5.3 nerfacc==0.5.3 rich
    PYTHONPATH=. python tests/goldens/make_scene.py

A case is a function of named tensors and of settings. The file has its inputs `case/in/name`, its outputs
`case/out/0`, the upstream gradients `case/up/0`, and the gradients `case/grad/name` of the sum of upstream times
output.
"""
import hashlib
import json
import pathlib
import platform

import nerfacc
import numpy as np
import torch
from gsplat.cuda import _torch_impl as gsplat

HERE = pathlib.Path(__file__).parent
F = torch.nn.functional
DRAW = np.random.default_rng(11)


def drawn(*shape, low=None, high=None):
    return DRAW.standard_normal(shape) if low is None else DRAW.uniform(low, high, shape)


def trilinear(grid, x):
    """grid_sample has its grid as (z, y, x)."""
    return F.grid_sample(grid.permute(0, 3, 2, 1)[None], x[None, None, None], align_corners=True,
                         padding_mode="zeros")[0, :, 0, 0].T


def triplane(planes, x):
    return sum(F.grid_sample(plane.permute(0, 2, 1)[None], x[None, None, :, list(axes)], align_corners=True,
                             padding_mode="zeros")[0, :, 0].T
               for plane, axes in zip(planes, ((0, 1), (0, 2), (1, 2))))


def composite(sigma, color, delta, t, background):
    ends = delta.cumsum(1)
    w, _, _ = nerfacc.render_weight_from_density(ends - delta, ends, sigma)
    opacity = w.sum(1)
    return (w[..., None] * color).sum(1) + (1 - opacity)[:, None] * background, (w * t).sum(1), opacity


def inverse_cdf(edges, w, u, floor):
    """sample_pdf of nerf-pytorch, with gradients in the weights, and without the guard for empty bins."""
    p = (w + floor) / (w + floor).sum(1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(p[:, :1]), p.cumsum(1)], 1)
    k = torch.searchsorted(cdf.detach(), u.detach(), right=True) - 1
    low, high = cdf.gather(1, k), cdf.gather(1, k + 1)
    return edges.gather(1, k) + (u - low) / (high - low) * (edges.gather(1, k + 1) - edges.gather(1, k))


def covariance(scale, q):
    return gsplat._quat_scale_to_covar_preci(q, scale, True, False)[0]


def seen(project, mean, cov, focal, centre, rotation, translation, size):
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3], view[:3, 3] = rotation, translation
    K = torch.eye(3, dtype=torch.float64)
    K[0, 0], K[1, 1], K[0, 2], K[1, 2] = focal[0], focal[1], centre[0], centre[1]
    p, cov_c = gsplat._world_to_cam(mean, cov, view[None])
    uv, cov2 = project(p, cov_c, K[None], size[1], size[0])
    return uv[0], cov2[0] + 0.3 * torch.eye(2, dtype=torch.float64), p[0, :, 2]


def splat(uv, cov2, depth, opacity, color, background, size):
    """The authors' rules at each pixel, one Gaussian after the other."""
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in size), indexing="ij")
    y, T, done = torch.zeros(len(background), *size, dtype=torch.float64), torch.ones(*size, dtype=torch.float64), False
    for i in depth.argsort():
        d = torch.stack([u - uv[i, 0], v - uv[i, 1]])
        q = torch.einsum("ahw,ab,bhw->hw", d, torch.linalg.inv(cov2[i]), d)
        alpha = (opacity[i] * torch.exp(-q / 2)).clamp(max=0.99)
        counts = (q <= 9) & (alpha >= 1 / 255)
        done = done | (counts & (T * (1 - alpha) < 1e-4))
        alpha = torch.where(counts & ~done, alpha, 0)
        y, T = y + alpha * T * color[i][:, None, None], T * (1 - alpha)
    return y + T * background[:, None, None], T


def harmonic_color(coefficients, direction):
    degree = int(coefficients.shape[1] ** 0.5) - 1
    return (gsplat._spherical_harmonics(degree, direction, coefficients) + 0.5).clamp(min=0)


def positive(n, *shape):
    a = drawn(n, *shape, shape[-1])
    return a @ a.swapaxes(-1, -2) + 0.5 * np.eye(shape[-1])


q, _ = np.linalg.qr(drawn(3, 3))
ROTATION = q * np.sign(np.linalg.det(q))
CAMERA = dict(focal=np.array([20.0, 20.0]), centre=np.array([8.0, 8.0]), rotation=ROTATION,
              translation=np.array([0.1, -0.2, 4.0]))
MEANS = np.concatenate([drawn(5, 3) / 2, (np.array([[3.0, 0.5, 0.3], [-0.2, -4.0, 0.0]])) @ ROTATION])
# the last two are out of sight
OPAQUE, I = np.arange(30) < 3, np.arange(30)  # three Gaussians of opacity 1, near a pixel's centre
CASES = {  # a function, its tensors, its settings, and which of the tensors have gradients
    "trilinear": (trilinear, dict(grid=drawn(2, 4, 3, 5), x=drawn(40, 3, low=-1.3, high=1.3)), {}, "grid x"),
    "triplane": (triplane, dict(planes=drawn(3, 2, 5, 5), x=drawn(40, 3, low=-1.1, high=1.1)), {}, "planes x"),
    "composite": (composite, dict(sigma=drawn(6, 9, low=0, high=3), color=drawn(6, 9, 3), delta=drawn(
        6, 9, low=0, high=1), t=drawn(6, 9), background=drawn(3)), {}, "sigma color delta t background"),
    "inverse_cdf": (inverse_cdf, dict(edges=np.sort(drawn(4, 9)), w=drawn(4, 8, low=0, high=1), u=drawn(
        4, 12, low=0, high=1)), dict(floor=1e-5), "edges w u"),
    "covariance": (covariance, dict(scale=drawn(6, 3, low=0.1, high=2), q=drawn(6, 4)), {}, "scale q"),
    "perspective_gaussians": (lambda size, limit, **given: seen(gsplat._persp_proj, size=size, **given), dict(
        mean=MEANS, cov=positive(7, 3) / 9, **CAMERA), dict(size=(16, 16), limit=1.3 * 8 / 20),
        "mean cov rotation translation"),
    "orthographic_gaussians": (lambda size, **given: seen(gsplat._ortho_proj, size=size, **given), dict(
        mean=MEANS, cov=positive(7, 3) / 9, **CAMERA), dict(size=(16, 16)),
        "mean cov focal centre rotation translation"),
    "splat": (splat, dict(uv=np.where(OPAQUE[:, None], [5.45, 6.52] + I[:, None] / 50, drawn(
        30, 2, low=0, high=14)), cov2=positive(30, 2) * 2,
        depth=np.where(OPAQUE, 0.9 - I / 99, drawn(30, low=1, high=2)),
        opacity=np.where(OPAQUE, 1, drawn(30, low=0.05, high=1)), color=drawn(30, 3), background=drawn(3)),
              dict(size=(12, 14)), "uv cov2 opacity color background"),
    **{f"harmonic_color_{k}": (harmonic_color, dict(coefficients=drawn(9, k, 3), direction=drawn(9, 3)), {},
                               "coefficients direction") for k in (4, 9, 16)},
}


def main():
    arrays, cases = {}, {}
    for name, (function, inputs, settings, wrt) in CASES.items():
        tensors = {key: torch.tensor(a, requires_grad=key in wrt.split()) for key, a in inputs.items()}
        outputs = function(**tensors, **settings)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        up = [torch.tensor(drawn(*out.shape)) for out in outputs]
        sum((u * out).sum() for u, out in zip(up, outputs)).backward()
        arrays |= {f"{name}/in/{key}": a for key, a in inputs.items()}
        arrays |= {f"{name}/out/{i}": out.detach().numpy() for i, out in enumerate(outputs)}
        arrays |= {f"{name}/up/{i}": u.numpy() for i, u in enumerate(up)}
        arrays |= {f"{name}/grad/{key}": tensors[key].grad.numpy() for key in wrt.split()}
        cases[name] = {"settings": settings, "gradients": wrt.split()}
    np.savez_compressed(HERE / "scene.npz", **arrays)
    versions = {"torch": torch.__version__, "gsplat": "1.5.3", "nerfacc": nerfacc.__version__, "numpy": np.__version__,
                "python": platform.python_version(), "machine": platform.machine()}
    about = {
        "file": "scene.npz", "generator": "make_scene.py", "versions": versions,
        "authority": "torch grid_sample and autograd; gsplat.cuda._torch_impl; nerfacc's dense weights; float64",
        "licence_of_authority": "BSD-3 / Apache-2.0 / MIT",
        "sha256": hashlib.sha256((HERE / "scene.npz").read_bytes()).hexdigest(), "cases": cases}
    (HERE / "scene.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
