"""Writes unet.npz and unet.json: more configurations of the U-Net and of Stable Diffusion 3's transformer, made as
those of make_nets.py.

    PYTHONPATH=. python tests/goldens/make_unet.py
"""
from tests.goldens import make_nets
from tests.goldens.make_nets import mmdit, unet_of_pixels, unet_with_text

TEXT_EVERYWHERE = dict(down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3)
NETWORKS = {
    # distilled: one layer less in every level, no middle; three levels, of which two halvings are of odd sizes
    "unet_distilled_small": lambda: unet_with_text(
        (11, 6), block_out_channels=(4, 4, 8), layers_per_block=1, mid_block_type=None, norm_num_groups=2,
        **TEXT_EVERYWHERE),
    # levels that differ in layers, in transformer blocks and in heads
    "unet_uneven": lambda: unet_with_text(
        (5, 7), layers_per_block=[1, 2], transformer_layers_per_block=[2, 1], attention_head_dim=[4, 1],
        use_linear_projection=True, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")),
    # attention of pixels at every size, one head a channel pair; classes
    "unet_ddpm_attention": lambda: unet_of_pixels(
        (4, 8), num_class_embeds=3, attention_head_dim=2, norm_num_groups=2, block_out_channels=(4, 8),
        down_block_types=("AttnDownBlock2D",) * 2, up_block_types=("AttnUpBlock2D",) * 2),
    # queries and keys normalised, one attention; rows and columns that make no patch
    "mmdit_sd35_large": lambda: mmdit((7, 11), qk_norm="rms_norm"),
    # a second attention in every block, the last one too; patches of 3, as many as places in one direction
    "mmdit_sd35_medium": lambda: mmdit((9, 18), patch_size=3, dual_attention_layers=(0, 1, 2), qk_norm="rms_norm"),
    # attention of pixels whose heads differ in size: a list that the way up takes from its beginning, too
    "unet_heads_of_pixels": lambda: unet_with_text(
        (4, 6), block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, attention_head_dim=[4, 1],
        down_block_types=("AttnDownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("AttnUpBlock2D",) * 2),
}

if __name__ == "__main__":
    make_nets.NETWORKS |= NETWORKS
    make_nets.main("unet", NETWORKS, ())
