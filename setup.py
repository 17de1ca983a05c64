"""Packages that no static list can name: all of sdsbench, and the root folders that an installed package carries."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sdsbench", "sdsbench.*"]), "sdsbench.conf", "sdsbench.slurm", "sdsbench.paper"]
)
