"""The data plane: what needs root (disks, cgroups, network, the OCI runtime) and the link between server and guests."""
