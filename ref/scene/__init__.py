"""Scenes in three dimensions: cameras, volumes, fields, Gaussians, and objects made by score distillation. `from
ref.scene import composite` finds all of them.

Everything here is float64. A camera looks along z: x points right, y down, z forward; a point p of the world is R p +
T_wc in the camera's frame (`ref.scene.camera`). N points or rays, C channels.
"""
from ref.scene.volume import (
    composite, composite_backward, intervals, intervals_backward, inverse_cdf, inverse_cdf_backward, stratified,
    stratified_backward, volume_weights, volume_weights_backward,
)  # fmt: skip
