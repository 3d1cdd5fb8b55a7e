"""The study's generative model: a conditional GAN for augmentation, and whether its images help a classifier."""
