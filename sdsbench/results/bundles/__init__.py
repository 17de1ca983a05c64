"""Bundles: runs packed into one zip file for exchange. Tables read it directly; files changed since are reported."""
