"""Scenes in three dimensions: cameras, volumes, fields, Gaussians, and objects made by score distillation. `from
ref.scene import composite` finds all of them.

Everything here is float64. A camera looks along z: x points right, y down, z forward; a point p of the world is
rotation p + translation in the camera's frame (`ref.scene.camera`). N points or rays, C channels.
"""
from ref.scene.camera import (
    from_opengl, from_pytorch3d, look_at, look_at_backward, orthographic_project, orthographic_project_backward,
    orthographic_rays, orthographic_rays_backward, perspective_project, perspective_project_backward,
    perspective_rays, perspective_rays_backward, pixel_centres, to_opengl, to_pytorch3d,
)  # fmt: skip
from ref.scene.distill import (
    annealed_time, distillation_weight, gaussian_distillation, gaussian_distillation_backward, gaussian_eps,
    gaussian_eps_backward, score_distillation,
)  # fmt: skip
from ref.scene.fields import (
    harmonic_color, harmonic_color_backward, positional_encoding, positional_encoding_backward, spherical_harmonics,
    spherical_harmonics_backward, trilinear, trilinear_backward, triplane, triplane_backward, voxels, voxels_backward,
)  # fmt: skip
from ref.scene.gaussians import (
    covariance, covariance_backward, orthographic_gaussians, orthographic_gaussians_backward, perspective_gaussians,
    perspective_gaussians_backward, rotation_from_quaternion, rotation_from_quaternion_backward,
)  # fmt: skip
from ref.scene.splat import depth_order, splat, splat_backward
from ref.scene.volume import (
    composite, composite_backward, intervals, intervals_backward, inverse_cdf, inverse_cdf_backward, stratified,
    stratified_backward, volume_weights, volume_weights_backward,
)  # fmt: skip
