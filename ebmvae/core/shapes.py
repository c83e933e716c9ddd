"""Shapes that convolutions of stride 2 go through, shared by VAEs and classifiers."""


def pyramid(size, convolutions=3):
    """Height or width before and after each 3x3 convolution of stride 2: 28 -> [28, 14, 7, 4]."""
    sizes = [size]
    for _ in range(convolutions):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def flatten_maps(x):
    """Feature maps (B, C, H, W) -> (B, H*W*C).

    Pixel by pixel, as channels_last has them in memory, so nothing is copied.
    """
    return x.permute(0, 2, 3, 1).flatten(1)
