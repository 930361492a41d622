"""The studies shapes and nerf: gradients of what is fitted, the hull, the ray tracer on what is known, OBJ files."""
import numpy as np
import pytest

from bench.studies import nerf, radiance, shapes, tracer
from bench.studies import voxel_object as objects
from ref import philox, tree
from tests.bench import along

CUBE = [f"v {x} {y} {z}" for x in (0, 2) for y in (0, 2) for z in (0, 2)]
FACES = ["f 1 2 4 3", "f 5/1 6/2 8/3 7/4", "f 1// 2// 6// 5//", "f -6 -5 -1 -2", "f 1 3 7 5", "f 2 4 8 6"]


def test_the_gradient_of_a_voxel_object():
    rays = objects.rays([0.0, 90.0], side=6, pixels=2.5)
    grid, weights = (philox.normal(3, shape, i).astype(np.float32) for i, shape in enumerate([(1, 6, 5, 7), (72,)]))

    def loss(grid):
        return float(np.sum(objects.rendered(grid.astype(np.float32), rays)[0].reshape(-1).astype(float) * weights))

    gradient = objects.rendered_backward(weights, objects.rendered(grid, rays)[1])
    mine, by_hand = along(loss, grid, gradient, 1e-2)
    assert mine == pytest.approx(by_hand, rel=0.01) and abs(by_hand) > 0.1


def test_a_hull_shows_no_more_than_its_two_pictures_and_a_full_one_shows_them():
    bar, full = np.full((28, 28), -1.0), np.full((28, 28), 1.0)
    bar[6:22, 12:16] = 1
    for pair in ((bar, full), (full, bar), (bar, bar)):
        views = shapes.both_views(objects.hull(*(a.ravel() for a in pair)), False).reshape(2, 28, 28)
        for view, picture in zip(views, pair):
            if picture is bar:
                assert view[8:20, 13:15].min() > 0.9 and max(view[:, :9].max(), view[:, 19:].max()) < -0.9
                assert view[:3].max() < -0.9 and view[25:].max() < -0.9


def test_pairs_are_all_different_and_the_drawn_ones_first():
    pairs = shapes.ordered(90, 0)
    assert len(set(pairs)) == 90 and all(a != b for a, b in pairs) and pairs[:4] == list(shapes.DRAWN)
    assert shapes.ordered(7, 0) == pairs[:7] != shapes.ordered(7, 1)


@pytest.mark.parametrize("name", radiance.WAYS)
def test_the_gradient_of_each_way_of_keeping_a_scene(name, monkeypatch):
    """Against the loss of the same batch, along a random direction of all parameters."""
    monkeypatch.setattr(radiance, "VOXELS", 6)
    monkeypatch.setattr(radiance, "PLANE", 6)
    monkeypatch.setattr(radiance, "GAUSSIANS", 30)
    monkeypatch.setattr(radiance, "SAMPLES", 8)
    way, cameras = radiance.WAYS[name], tracer.cameras(1, 8)
    params = way.init(0)
    pictures = philox.uniform(1, (1, 8, 8, 3)).astype(np.float32)
    # each pixel in turn
    monkeypatch.setattr(philox, "below", lambda seed, count, most, stream: np.arange(count) % most)
    rays, views = radiance.RAYS.get(name, 64), radiance.views(pictures, cameras)

    def loss(params):
        params = tree.map(lambda p: p.astype(np.float32), params)
        if name == "Gaussians":
            y = way.picture(params, cameras[0], 8)
            return float(np.sum((y - pictures[0]).astype(float) ** 2) / 2 / 64)
        field = way.step.args[0]
        pick = np.arange(rays) % 64
        table = views.origin[pick], views.direction[pick]
        u = philox.uniform(0, (rays, 8), philox.stream("time", 5))
        y = radiance.rendered(field, params, *table, u)[0]
        return float(np.sum((y - pictures.reshape(-1, 3)[pick]).astype(float) ** 2) / 2 / rays)

    mine, by_hand = along(loss, params, way.step(params, views, 0, 5), 1e-3)
    assert mine == pytest.approx(by_hand, rel=0.05, abs=2e-4) and abs(by_hand) > 1e-4


def test_the_ray_tracer_meets_what_is_known():
    origin, direction = np.array([[0.0, -3, 0], [0.3, -3, 0], [2, -3, 0]]), np.tile([0.0, 1, 0], (3, 1))
    t, normal = tracer.meet_sphere(tracer.Sphere((0.0, 0, 0), 0.5, (1, 1, 1), (1, 1, 1)), origin, direction)
    assert t[:2] == pytest.approx([2.5, 2.6]) and t[2] == np.inf and normal[0] == pytest.approx([0, -1, 0])
    box = tracer.Box((-0.5,) * 3, (0.5,) * 3, (1, 1, 1), (1, 1, 1))
    t, normal = tracer.meet_box(box, origin, direction)
    assert t[:2] == pytest.approx([2.5, 2.5]) and t[2] == np.inf and np.array_equal(normal[1], [0, -1, 0])
    white = tracer.traced((), origin, direction)
    assert np.all(white == 1) and nerf.psnr(white, white * 0.9) == pytest.approx(20)


def test_a_mesh_of_a_cube_is_the_box(tmp_path):
    path = tmp_path / "cube.obj"
    path.write_text("\n".join([*CUBE, "vn 0 0 1", *FACES]), "utf-8")
    mesh = tracer.read_obj(path)
    half = 0.85 / np.sqrt(3)
    box = tracer.Box((-half,) * 3, (half,) * 3, mesh.color, mesh.color)
    camera = tracer.cameras(3, 12)[1]
    assert len(mesh.corners) == 12 and np.abs(mesh.corners).max() == pytest.approx(half)
    assert tracer.picture((mesh,), camera, 12) == pytest.approx(tracer.picture((box,), camera, 12), abs=1e-9)
    for text, said in (("v 1 2\nf 1 1 1", "line 1"), ("v 0 0 0\nf 1 2 3", "line 2"), ("# nothing", "faces")):
        path.write_text(text, "utf-8")
        with pytest.raises(ValueError, match=said):
            tracer.read_obj(path)
