"""eksim: a discrete-event simulator of an EKS cluster's pod IP capacity."""

__version__ = "0.1.0"
