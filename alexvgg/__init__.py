"""alexvgg: distributed training that reproduces AlexNet (2012) and VGG (2014)."""

__version__ = "0.1.0"
