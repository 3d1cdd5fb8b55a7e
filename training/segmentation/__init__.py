"""The study's segmentation model: a U-Net on outlined slices, its training and its measurement."""
