"""Published values; packaged as sdsbench.paper. README.md says where each number comes from."""
