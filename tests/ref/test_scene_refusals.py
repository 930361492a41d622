"""What the functions of `ref.scene` and its network refuse, as in test_refusals.py."""
import numpy as np
import pytest

from tests.ref.test_refusals import B, INF, NAN, SIX, THREE, Type, row  # noqa: F401
from tests.ref.test_refusals import test_a_wrong_argument_is_refused_by_name as refuses

REFUSED = {
    "scene.volume_weights": {"sigma": [lambda s: -s, B], "delta": [row, lambda d: -d]},
    "scene.volume_weights_backward": {"dw": [row], "drest": [SIX]},
    "scene.composite": {"color": [row, SIX], "t": [row], "background": [B, 1.0], "delta": [lambda d: d - 2]},
    "scene.composite_backward": {"dy": [row], "ddepth": [THREE], "dopacity": [SIX]},
    "scene.stratified": {"near": [THREE, 1.0], "far": [row], "u": [B]},
    "scene.stratified_backward": {"dt": [row]},
    "scene.intervals": {"t": [B], "far": [THREE]},
    "scene.intervals_backward": {"ddelta": [B]},
    "scene.inverse_cdf": {
        "edges": [row, SIX], "w": [lambda w: -w, B, dict(w=np.zeros((2, 3)), floor=0)], "floor": [-1e-5, NAN, B],
        "u": [lambda u: u + 0.5, lambda u: -u, lambda u: u * NAN, row],
    },
    "scene.inverse_cdf_backward": {"dt": [row]},
    "scene.look_at": {"eye": [B], "target": [SIX, dict(target=THREE, eye=THREE)],
                      "up": [B, lambda u: 0 * u, dict(up=THREE, eye=THREE, target=2 * THREE)]},
    "scene.look_at_backward": {"drotation": [SIX], "dtranslation": [B]},
    "scene.pixel_centres": {"size": [Type((2.0, 3))], "origin": [Type((0, 0.5))]},
    "scene.to_opengl": {"rotation": [SIX], "translation": [B]},
    "scene.from_opengl": {"pose": [SIX]},
    "scene.to_pytorch3d": {"rotation": [SIX], "translation": [B]},
    "scene.from_pytorch3d": {"rotation": [SIX], "translation": [B]},
    **{f"scene.{name}{end}": {"focal": [THREE, 7.0], "rotation": [SIX], "translation": [B, SIX]}
       | ({"centre": [THREE]} if "rays" in name or not end else {})
       | {("points" if "project" in name else "uv"): [THREE, np.ones((2, 4))]}
       | ({("duv" if "project" in name else "dorigin"): [row]} if end else {})
       for name in ("perspective_rays", "orthographic_rays", "perspective_project", "orthographic_project")
       for end in ("", "_backward")},
    "scene.trilinear": {"grid": [SIX], "x": [SIX.T, B]},
    "scene.trilinear_backward": {"dy": [row]},
    "scene.voxels": {"grid": [SIX], "x": [SIX.T], "shift": [B, Type("1"), Type(None)]},
    "scene.voxels_backward": {"dsigma": [row], "dcolor": [row]},
    "scene.triplane": {"planes": [SIX, lambda p: p[:2], lambda p: p[..., :2]], "x": [SIX.T]},
    "scene.triplane_backward": {"dy": [row]},
    "scene.spherical_harmonics": {"direction": [B, SIX.T, 0 * SIX], "degree": [-1, 4, Type(1.0)]},
    "scene.spherical_harmonics_backward": {"dy": [SIX]},
    "scene.harmonic_color": {"coefficients": [SIX, lambda c: c[:, :5]], "direction": [row, lambda d: 0 * d]},
    "scene.harmonic_color_backward": {"dcolor": [row]},
    "scene.positional_encoding": {"x": [B], "octaves": [-1, Type(2.5)]},
    "scene.positional_encoding_backward": {"dy": [row]},
    "scene.rotation_from_quaternion": {"q": [SIX, np.zeros((2, 4))]},
    "scene.rotation_from_quaternion_backward": {"dR": [row]},
    "scene.covariance": {"scale": [row], "q": [SIX, lambda q: 0 * q]},
    "scene.covariance_backward": {"dcov": [row], "scale": [row]},
    "scene.perspective_gaussians": {"cov": [row], "dilation": [-0.3, NAN], "limit": [-1, NAN],
                                    "mean as points": [SIX.T], "focal": [THREE], "rotation": [SIX]},
    "scene.perspective_gaussians_backward": {"duv": [row], "dcov2": [row], "ddepth": [SIX], "cov": [row],
                                             "limit": [-1]},
    "scene.orthographic_gaussians": {"cov": [row], "dilation": [-0.3, NAN], "rotation": [SIX]},
    "scene.orthographic_gaussians_backward": {"duv": [row], "dcov2": [row], "ddepth": [SIX], "cov": [row]},
    "scene.depth_order": {"depth": [SIX, lambda d: d * NAN]},
    "scene.splat": {
        "uv": [SIX], "cov2": [row, lambda c: -c, lambda c: 0 * c], "depth": [row, lambda d: d * NAN],
        "opacity": [row, lambda o: 5 * o, lambda o: -o, lambda o: o * NAN], "color": [row], "background": [1.0, THREE],
        "size": [Type((2.0, 3))], "origin": [Type((0.5, 0))], "alpha_max": [1.0, NAN, -0.1], "alpha_min": [-1, NAN],
        "rest_min": [NAN], "sigmas": [-3, NAN], "depth_min": [NAN],
    },
    "scene.splat_backward": {"dy": [row], "drest": [row], "opacity": [lambda o: 5 * o]},
    "nets.nerf.nerf": {
        "density": ["gelu"], "x": [lambda x: x[:, :2], row], "direction": [row],
        "params": [lambda p: p | {"pts_linears": [{"weight": np.ones((6, 4)), "bias": np.zeros(6)}]}],
    },
    "nets.nerf.nerf_backward": {"density": ["gelu"]},
    "scene.distillation_weight": {"weighting": ["dreamfusion"], "t": [1001, -1, Type(1.0)]},
    "scene.score_distillation": {"eps": [row], "weighting": ["w"], "t": [1001, np.array([1, 2, 3]), Type(0.5)]},
    "scene.annealed_time": {"step": [-1, 100, Type(1.5)], "steps": [0, Type(9.0)], "first": [200, Type(980.0)],
                            "last": [981, -1]},
    **{f"scene.{name}{end}": {"mu": [B, SIX], "cov": [SIX], "t": [1001, np.array([1, 2, 3]), Type(1.0)], x: [B],
                              "abar": [[0.9, 0.8]]}
       | ({} if not end else {"deps_hat" if x == "xt" else "dout": [row]})
       for name, x in (("gaussian_eps", "xt"), ("gaussian_distillation", "x")) for end in ("", "_backward")},
}
CASES = [(name, key, wrong) for name, keys in REFUSED.items() for key, values in keys.items() for wrong in values]


@pytest.mark.parametrize("name, key, wrong", CASES, ids=[f"{name}-{key}".replace(" ", ",") for name, key, _ in CASES])
def test_a_wrong_argument_of_a_scene_is_refused_by_name(name, key, wrong):
    refuses(name, key, wrong)
