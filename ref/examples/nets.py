"""Worked examples of `ref.nets`."""
import functools

import numpy as np

from ref import tree
from ref.diffusion import q_sample
from ref.examples.base import PIXELS, critic, digits, sines
from ref.nets import gan as gan_nets
from ref.nets import codec, codec_lm, init, mlp, nerf, t5, text, wavenet
from ref.nets import vae as vae_nets


def stirred(params):
    """The same names and shapes with numbers everywhere: a fresh block is the identity and hides what is in it. params:
    a tree."""
    def some(a, k):
        scale = np.prod(a.shape[1:]) ** -0.5 if a.ndim > 1 else 0.3
        return sines(a.shape, k) * scale + (np.mean(a) == 1)

    return tree.from_named({path: some(a, k / 7) for k, (path, a) in enumerate(tree.named(params).items())})


UNET = dict(
    in_channels=1, out_channels=1, block_out_channels=(2, 4), down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=2, attention_head_dim=2,
    cross_attention_dim=3, num_class_embeds=2,
)
MMDIT = dict(
    sample_size=8, patch_size=2, in_channels=1, out_channels=1, num_layers=2, num_attention_heads=2,
    attention_head_dim=2, joint_attention_dim=3, pooled_projection_dim=3, pos_embed_max_size=5,
    dual_attention_layers=(0,), qk_norm="rms_norm",
)
T5 = dict(vocab_size=12, d_model=4, d_kv=2, d_ff=5, num_layers=2, num_heads=3, relative_attention_num_buckets=8,
          relative_attention_max_distance=6)
TEXT = sines((2, 3, 3), 7)
PROMPTS = ["a red seven above a small blue three", "a small blue three below a red seven"]  # one scene, said twice
WORDS = list(dict.fromkeys(" ".join(PROMPTS).split()))
IDS = np.array([[1 + WORDS.index(word) for word in prompt.split()] for prompt in PROMPTS])  # (2, 8); 0 is no word


@functools.cache
def net(name):
    """Small parameters of a network, made when they are needed. name: str."""
    made = {
        "unet": lambda: init.unet_init(0, UNET),
        "text": lambda: init.text_encoder_init(0, 1 + len(WORDS), IDS.shape[1], 4, 2),
        "t5": lambda: t5.t5_encoder_init(0, T5),
        "dit": lambda: init.dit_init(0, 4, 2, 1, 8, 2, 2, 1, 3, False),
        "joint_dit": lambda: init.joint_dit_init(0, 4, 2, 1, 8, 2, (IDS.shape[1], 4), 1),
        "mmdit": lambda: init.mmdit_init(0, MMDIT),
        "autoencoder": lambda: init.autoencoder_init(0, 1, 2, (4, 4), 1),
        "tiny": lambda: init.tiny_init(0, 1, 2, 3, (1, 1)),
        "nerf": lambda: nerf.nerf_init(0, 2, 1, 6, 3, 1),
        "wavenet": lambda: wavenet.wavenet_init(0, 4, 2, 2, 3),
        "codec": lambda: codec.codec_init(0, 2, 3, (2, 3)),
        "codec_lm": lambda: codec_lm.codec_lm_init(0, 3, 4, 3, (2, 3), 4, 1),
    }
    return stirred(made[name]())


TOKENS, CODES = np.array([[0, 2], [1, 1]]), np.array([  # (2, 3, 3)
    [[3, 0, 2], [1, 1, 2], [0, 3, 3]], [[1, 2, 0], [0, 3, 1], [2, 2, 1]]])


def read(ids):
    """What the text encoder makes of prompts, as the model of `bench.studies.prompt` reads them. ids: (B, 8)."""
    return text.text_encoder(net("text"), ids, CONFIG)[0]


def branch():
    """The parameters of a codec's residual unit."""
    level = net("codec")["encoder"]["levels"][0]
    return {name: level[name] for name in ("conv1", "conv2")}


IMAGE = digits()[:, None, ::4, ::4]  # (2, 1, 4, 4)
CONFIG = dict(norm_num_groups=2, attention_head_dim=2, num_attention_heads=2, num_heads=2)

ARGUMENTS = dict(
    pixels=PIXELS**2, width=8, depth=2, classes=2, frequencies=8, latent=4, act="softplus", t=np.array([100, 500]),
    labels=np.array([0, 1]), z=lambda latent: sines((2, latent)),
    flat=lambda x0, eps, t, abar: q_sample(x0, t, eps, abar).reshape(2, -1), x=lambda flat: flat,
    params=lambda pixels: critic(pixels),
)

FUNCTIONS = {
    "init.drawn": dict(layers={"norm1": {"weight": (4,), "bias": (4,)}, "conv2": {"weight": (4, 2, 3, 3)}},
                       zero=("conv2",)),
    "init.text_encoder_init": dict(vocabulary=9, places=6, width=4, layers=2),
    "init.unet_init": dict(config=UNET),
    "init.dit_init": dict(input_size=4, in_channels=1, hidden_size=8, depth=2, num_heads=2, num_classes=3),
    "init.joint_dit_init": dict(input_size=4, patch_size=2, in_channels=1, hidden_size=8, depth=2, context=(3, 3)),
    "init.mmdit_init": dict(config=MMDIT),
    "init.autoencoder_init": dict(channels=1, latent=2, widths=(4, 4), layers=1),
    "init.tiny_init": dict(channels=1, latent=2, width=3, blocks=(1, 1)),
    "text.text_encoder": dict(params=lambda: net("text"), ids=IDS, config=CONFIG),
    "text.text_block": dict(params=lambda: net("text")["encoder"]["layers"][0], x=sines((2, 3, 4)), config=CONFIG),
    "t5.t5_encoder_init": dict(config=T5),
    "t5.t5_encoder": dict(params=lambda: net("t5"), ids=IDS, config=T5,
                          mask=np.array([[True] * 8, [True] * 5 + [False] * 3])),
    "t5.t5_block": dict(params=lambda: net("t5")["encoder"]["block"][1], x=sines((2, 3, 4)), bias=sines((3, 3, 3), 1),
                        config=T5),
    "t5.biased_attention": dict(q=sines((2, 3, 4, 2)), k=sines((2, 3, 4, 2), 1), v=sines((2, 3, 4, 2), 2),
                                bias=sines((3, 4, 4), 3), mask=np.array([[True] * 4, [True, False, True, False]])),
    "t5.relative_buckets": dict(length=9, buckets=8, max_distance=6),
    "unet.unet": dict(params=lambda: net("unet"), x=digits()[:, None, ::2, ::2], context=TEXT, config=UNET),
    "unet.transformer": dict(params=lambda: net("unet")["mid_block"]["attentions"][0], x=sines((2, 4, 2, 3)),
                             context=TEXT, heads=2, groups=2),
    "unet.transformer_block": dict(
        params=lambda: net("unet")["mid_block"]["attentions"][0]["transformer_blocks"][0], x=sines((2, 5, 4)),
        context=TEXT, heads=2,
    ),
    "dit.dit": dict(params=lambda: net("dit"), x=IMAGE, config=CONFIG),
    "dit.dit_block": dict(params=lambda: net("dit")["blocks"][0], x=sines((2, 3, 8)), a=sines((2, 8), 1), heads=2),
    "dit.final_layer": dict(params=lambda: net("dit")["final_layer"], x=sines((2, 3, 8)), a=sines((2, 8), 1)),
    "joint_dit.joint_dit": dict(params=lambda: net("joint_dit"), x=IMAGE, context=lambda: read(IDS), config=CONFIG),
    "mmdit.mmdit": dict(params=lambda: net("mmdit"), x=digits()[:, None, ::2, ::2], context=TEXT,
                        pooled=sines((2, 3), 8), config=MMDIT),
    "mmdit.mmdit_block": dict(params=lambda: net("mmdit")["transformer_blocks"][0], x=sines((2, 5, 4)),
                              context=sines((2, 3, 4), 1), a=sines((2, 4), 2), heads=2),
    "autoencoder.encode": dict(params=lambda: net("autoencoder"), x=IMAGE, config=CONFIG),
    "autoencoder.decode": dict(params=lambda: net("autoencoder"), z=sines((2, 2, 2, 2)), config=CONFIG),
    "autoencoder.tiny_decode": dict(params=lambda: net("tiny"), z=sines((2, 2, 2, 3)), config={}),
    "autoencoder.tiny_block": dict(params=lambda: net("tiny")["decoder"]["layers"][2], x=sines((2, 3, 3, 2))),
    "nerf.nerf": dict(params=lambda: net("nerf"), x=sines((2, 3), 29) / 2, direction=sines((2, 3), 4),
                      density="softplus"),
    "nerf.nerf_init": dict(octaves=2, octaves_direction=1, width=6, depth=3, skip=1),
    "wavenet.wavenet_init": dict(classes=4, channels=2, skip=2, layers=3),
    "wavenet.wavenet": dict(params=lambda: net("wavenet"), codes=CODES[:, 0], cycle=2),
    "wavenet.wavenet_layer": dict(params=lambda: net("wavenet")["layers"][0], h=sines((2, 2, 5)), dilation=2),
    "wavenet.wavenet_queues": dict(params=lambda: net("wavenet"), batch=2, cycle=2),
    "wavenet.wavenet_step": dict(params=lambda: net("wavenet"), code=CODES[:, 0, 0],
                                 queues=[sines((2, 2, 1)), sines((2, 2, 2), 1), sines((2, 2, 1), 2)]),
    "wavenet.wavenet_generate": dict(params=lambda: net("wavenet"), u=0.5 + sines((2, 4)) / 2, cycle=2),
    "codec.codec_init": dict(channels=2, latent=3, strides=(2, 3)),
    "codec.codec_encode": dict(params=lambda: net("codec")["encoder"], x=sines((2, 12))),
    "codec.codec_decode": dict(params=lambda: net("codec")["decoder"], z=sines((2, 3, 2))),
    "codec.codec_branch": dict(params=lambda: branch(), h=sines((2, 2, 4))),
    "codec_lm.codec_lm_init": dict(texts=3, classes=4, stages=3, places=(2, 3), width=4, layers=1),
    "codec_lm.first_codes": dict(params=lambda: net("codec_lm")["first"], text=TOKENS, codes=CODES[:, 0],
                                 config=CONFIG),
    "codec_lm.rest_codes": dict(params=lambda: net("codec_lm")["rest"], text=TOKENS, codes=CODES[:, :2], config=CONFIG),
    "codec_lm.codec_lm_log_likelihood": dict(params=lambda: net("codec_lm"), text=TOKENS, codes=CODES, config=CONFIG),
    "codec_lm.delay": dict(codes=CODES, empty=-1),
    "codec_lm.undelay": dict(steps=np.arange(30).reshape(2, 3, 5)),
    "gan.generator": dict(
        params=lambda latent, width, pixels: gan_nets.generator_init(0, latent, width, pixels, np.float64),
    ),
    "vae.encoder": dict(
        params=lambda pixels, width, latent: vae_nets.encoder_init(0, pixels, width, latent, np.float64),
    ),
    "vae.decoder": dict(
        params=lambda pixels, width, latent: vae_nets.decoder_init(0, pixels, width, latent, np.float64),
    ),
    "mlp.simple_mlp": dict(params=lambda pixels, width: mlp.simple_mlp_init(0, pixels, width, np.float64)),
    "mlp.residual": dict(
        params=lambda pixels, width, depth, classes, frequencies: tree.map(  # with the last layers of its blocks off 0
            lambda a: a + sines(a.shape) / 3,
            mlp.residual_init(0, pixels, width, depth, classes, frequencies, np.float64)),
    ),
    "mlp.residual_block": dict(
        params=lambda width: {n: sines((width,) * d, k) / 3
                              for k, (n, d) in enumerate(dict(w1=2, b1=1, w2=2, b2=1).items())},
        h=lambda width: sines((2, width), 5), c=lambda width: sines((2, width), 6),
    ),
}

# {function: (the argument that holds the prompts, the words of the first, the tokens after them)}
TOKENS = {
    "text.text_encoder": ("ids", PROMPTS[0].split(), []),
    "joint_dit.joint_dit": ("context", PROMPTS[0].split(), [f"patch {i},{j}" for i in range(2) for j in range(2)]),
}
