"""Reproducing a bundle: its runs are trained again on this machine and compared with the originals."""
